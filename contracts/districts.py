"""The 18 districts of Hong Kong: codes, names in three languages, and the region that each belongs to.

Codes: Digital Policy Office, Interoperability Framework, code list "District Council. Code", version 1.0 (2017-09-22).
Names: District Councils Ordinance (Cap. 547), Schedule 1.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class District:
    """`region`: Hong Kong Island, Kowloon or New Territories."""

    code: str
    en: str
    tc: str
    sc: str
    region: str


_ISLAND, _KOWLOON, _TERRITORIES = "Hong Kong Island", "Kowloon", "New Territories"

DISTRICTS = tuple(
    District(code=code, en=en, tc=tc, sc=sc, region=region)
    for code, en, tc, sc, region in (
        ("CW", "Central and Western", "中西區", "中西区", _ISLAND),
        ("WC", "Wan Chai", "灣仔區", "湾仔区", _ISLAND),
        ("EST", "Eastern", "東區", "东区", _ISLAND),
        ("STH", "Southern", "南區", "南区", _ISLAND),
        ("YTM", "Yau Tsim Mong", "油尖旺區", "油尖旺区", _KOWLOON),
        ("SSP", "Sham Shui Po", "深水埗區", "深水埗区", _KOWLOON),
        ("KLC", "Kowloon City", "九龍城區", "九龙城区", _KOWLOON),
        ("WTS", "Wong Tai Sin", "黃大仙區", "黄大仙区", _KOWLOON),
        ("KT", "Kwun Tong", "觀塘區", "观塘区", _KOWLOON),
        ("TW", "Tsuen Wan", "荃灣區", "荃湾区", _TERRITORIES),
        ("TM", "Tuen Mun", "屯門區", "屯门区", _TERRITORIES),
        ("YL", "Yuen Long", "元朗區", "元朗区", _TERRITORIES),
        ("NTH", "North", "北區", "北区", _TERRITORIES),
        ("TP", "Tai Po", "大埔區", "大埔区", _TERRITORIES),
        ("SK", "Sai Kung", "西貢區", "西贡区", _TERRITORIES),
        ("ST", "Sha Tin", "沙田區", "沙田区", _TERRITORIES),
        ("KC", "Kwai Tsing", "葵青區", "葵青区", _TERRITORIES),
        ("ILD", "Islands", "離島區", "离岛区", _TERRITORIES),
    )
)


def _bare(name: str) -> str:
    return " ".join(name.casefold().replace("&", " and ").split()).removesuffix(" district").removesuffix("區")


_CODES = {_bare(name): district.code for district in DISTRICTS for name in (district.en, district.tc, district.sc)}


def district_code(name: str) -> str | None:
    """The code of a district by its name, as files write it: "Central & Western", "Sha Tin District", "中西區". None
    when it names no district. Codes are not taken for names: other lists write KC for Kowloon City."""
    return _CODES.get(_bare(name))
