"""The DuckDB catalogue over the lake. In a notebook: `import warehouse; db = warehouse.connect()`."""

from warehouse.query import connect

__all__ = ["connect"]
