"""The only door to the public. What leaves goes through `door`: exact products of weather and air, and noised traffic
counts that are drawn once. Nothing else writes below open/."""
