"""The four pilot areas: which detector sites they begin with, and the roads that join them.

A chain is an ordered list of detector ids along one road or one corridor; lampposts lie between its neighbours.
Areas and speed limits were read from the Transport Department's recorded files: a lane without a vehicle carries
the road's limit as its placeholder speed (majority per road; urban roads without one: 50 km/h, Road Traffic
Ordinance, Cap. 374, s. 40).
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Area:
    """`districts` bound the area's posts; `tourists` scales its pedestrians; `chains` are detector ids in order."""

    prefix: str
    name: str
    districts: tuple[str, ...]
    tourists: float
    chains: tuple[tuple[str, ...], ...]


AREAS = (
    Area(
        prefix="CA",
        name="Central/Admiralty",
        districts=("Central & Western",),
        tourists=1.2,
        # From Sheung Wan along Connaught Road to Harcourt Road.
        chains=(
            (
                "AID04104",
                "AID03104",
                "AID04220",
                "AID03103",
                "AID04219",
                "AID04105",
                "AID04218",
                "TDSIEC10001",
            ),
        ),
    ),
    Area(
        prefix="CW",
        name="Causeway Bay/Wan Chai",
        districts=("Wan Chai",),
        tourists=1.6,
        # Gloucester Road, then Canal Road Flyover and Wong Nai Chung Gap Flyover to the racecourse.
        chains=(
            (
                "TDSIEC20001",
                "TDSIEC20002",
                "AID01214",
                "AID01110",
                "AID01215",
                "AID01109",
                "AID01216",
                "AID01108",
            ),
        ),
    ),
    Area(
        prefix="TS",
        name="Tsim Sha Tsui",
        districts=("Yau Tsim Mong",),
        tourists=2.0,
        # The Department has no detector south of Gascoigne Road: its sites there bound the area in the north.
        chains=(("AID05112", "AID05224", "AID05225", "AID05226", "AID05110"),),
    ),
    Area(
        prefix="KT",
        name="Kwun Tong/Kai Tak",
        districts=("Kwun Tong", "Kowloon City"),
        tourists=0.7,
        chains=(
            (
                *(f"AID021{number:02d}" for number in range(4, 17)),  # Kwun Tong Bypass, towards Kai Tak
            ),
            (*(f"AID022{number:02d}" for number in range(3, 16)),),  # and back
            ("AID05101", "AID05102", "AID05103", "AID05104"),  # Kai Fuk Road
            ("AID05232", "AID05233", "AID05234", "AID05235"),
            ("AID07110", "AID07111", "AID07112", "AID07114", "AID07115"),  # Kwun Tong Road, Lung Cheung Road
            ("AID07219", "AID07220", "AID07221", "AID07222", "AID07224", "AID07225"),
            ("AID07107", "AID07227", "AID07228"),  # Tseung Kwan O Road
            ("TDSPERE10001", "TDSPERE20001", "TDSPERE10002"),  # Prince Edward Road East at Kai Tak
        ),
    ),
)

POSTS_PER_AREA = 10_000  # two letters and four digits

_LIMITS_KMH = {
    "Aberdeen Praya Road": 70,
    "Aberdeen Tunnel": 70,
    "Canal Road Flyover": 70,
    "Castle Peak Rd-Hung Shui Kui": 70,
    "Castle Peak Rd-Kwai Chung": 70,
    "Castle Peak Rd-Lam Tei": 70,
    "Castle Peak Rd-Ping Shan": 70,
    "Cheung Pei Shan Road": 80,
    "Ching Cheung Road": 70,
    "Connaught Road West Flyover": 80,
    "Fanling Highway": 100,
    "Gloucestor Road": 70,
    "Harcourt Road": 70,
    "Island Eastern Corridor": 70,
    "Jockey Club Road": 70,
    "Kai Fuk Road": 70,
    "Kong Sham Western Highway": 80,
    "Kwai Chung Road": 70,
    "Kwun Tong Bypass": 70,
    "Lion Rock Tunnel Road": 80,
    "Long Tin Road": 70,
    "Lung Cheung Road": 70,
    "Lung Fu Road": 70,
    "Ma On Shan Bypass": 80,
    "Ma On Shan Road": 70,
    "New Clear Water Bay Road": 70,
    "North Lantau Highway": 110,
    "Penny's Bay Highway": 80,
    "Prince Edward Road East": 70,
    "Princess Margaret Road": 70,
    "San Tin Highway": 100,
    "Sha Tin Road": 80,
    "Shek Pai Wan Road": 70,
    "Shenzhen Bay Bridge": 100,
    "Shing Mun Tunnel Road": 80,
    "Tai Chung Kiu Road": 70,
    "Tai Po Tai Wo Road": 70,
    "Tate's Cairn Highway": 80,
    "Tate's Cairn Tunnel": 70,
    "Tin Ying Road": 70,
    "Ting Kok Road": 70,
    "Tolo Highway": 100,
    "Tsing Long Highway": 100,
    "Tsing Tin Road": 70,
    "Tsuen Wan Road": 70,
    "Tuen Mun Road": 70,
    "Wan Po Road": 70,
    "West Kln Hwy": 100,
    "West Kowloon Corridor": 70,
    "West Kowloon Highway": 100,
    "Wong Nai Chung Gap Flyover": 70,
    "Yuen Long Highway": 80,
    "Yuen Shin Road": 70,
}


def speed_limit_kmh(road: str) -> int:
    """The limit of a road by its English name: as recorded, else 50 km/h."""
    return _LIMITS_KMH.get(road, 50)
