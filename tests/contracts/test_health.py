"""Health and logs: what a scraper, a person and a machine are told."""

import json

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from contracts.health import Health, parse_address
from contracts.logs import say
from contracts.settings import SettingError


def test_metrics_and_health_are_served_and_a_failing_check_is_a_503() -> None:
    registry = CollectorRegistry()
    Counter("lamplight_things", "Things.", registry=registry).inc(3)
    is_well = True
    health = Health(("127.0.0.1", 0), registry, lambda: (is_well, {"unacknowledged": 5}), "LAMPLIGHT_X")
    with httpx.Client(base_url=f"http://127.0.0.1:{health.port}") as client:
        assert "lamplight_things_total 3.0" in client.get("/metrics").text
        answer = client.get("/health")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok", "unacknowledged": 5})
        is_well = False
        answer = client.get("/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "failing")
        assert client.get("/other").status_code == 404
    with pytest.raises(SettingError, match="change LAMPLIGHT_X"):
        Health(("127.0.0.1", health.port), registry, lambda: (True, {}), "LAMPLIGHT_X")
    health.close()


def test_an_address_is_a_port_or_a_host_with_one() -> None:
    assert parse_address("9101") == ("127.0.0.1", 9101)
    assert parse_address("0.0.0.0:9101") == ("0.0.0.0", 9101)
    assert parse_address("[::1]:9101") == ("::1", 9101)
    for wrong in ("", "x", "70000", "host:"):
        with pytest.raises(ValueError, match=r".*"):
            parse_address(wrong)


def test_a_line_is_for_people_and_on_request_for_machines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    say("ingest", "landing", offset=3)
    assert capsys.readouterr().err == "lamplight: ingest: landing\n"
    monkeypatch.setenv("LAMPLIGHT_LOG", "json")
    say("ingest", "landing", "warning", offset=3)
    line = json.loads(capsys.readouterr().err)
    assert {name: line[name] for name in ("level", "stage", "message", "offset")} == {
        "level": "warning",
        "stage": "ingest",
        "message": "landing",
        "offset": 3,
    }
