"""Ranges of ids are handed out once, by one server only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxd.host.ids import BLOCKS, FIRST, RANGES, IdRanges
from sandboxd.host.userns import IDS

if TYPE_CHECKING:
    from pathlib import Path


def _ranges(tmp_path: Path, name: str) -> IdRanges:
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    return IdRanges(folder, tmp_path / "claims")


def test_no_range_is_handed_out_twice(tmp_path: Path) -> None:
    ranges = _ranges(tmp_path, "a")
    taken = [ranges.take() for _ in range(3 * RANGES)]
    assert len(set(taken)) == len(taken)
    assert all(base % IDS == 0 and base >= FIRST for base in taken)
    ranges.close()


def test_a_range_given_back_is_used_again_first(tmp_path: Path) -> None:
    ranges = _ranges(tmp_path, "a")
    base = ranges.take()
    ranges.give_back(base)
    ranges.give_back(base)
    assert ranges.take() == base
    assert ranges.take() != base
    ranges.close()


def test_two_servers_never_share_a_range(tmp_path: Path) -> None:
    one, other = _ranges(tmp_path, "a"), _ranges(tmp_path, "b")
    taken = [ranges.take() for _ in range(2 * RANGES) for ranges in (one, other)]
    assert len(set(taken)) == len(taken)
    one.close()
    other.close()


def test_a_claim_outlives_its_server_while_an_instance_is_there(tmp_path: Path) -> None:
    first = _ranges(tmp_path, "a")
    base = first.take()
    (tmp_path / "a" / "instance").mkdir()
    first.close()
    other = _ranges(tmp_path, "b")
    assert base not in [other.take() for _ in range(RANGES)]
    again = _ranges(tmp_path, "a")
    again.mark(base)
    assert base not in [again.take() for _ in range(2 * RANGES)]
    again.close()
    other.close()


def test_a_claim_without_server_and_instances_is_taken_over(tmp_path: Path) -> None:
    first = _ranges(tmp_path, "a")
    base = first.take()
    (tmp_path / "a" / "instance").mkdir()
    first.close()
    (tmp_path / "a" / "instance").rmdir()
    other = _ranges(tmp_path, "b")
    assert other.take() == base
    other.close()


def test_a_block_of_somebody_else_is_not_handed_out_for_having_been_marked(tmp_path: Path) -> None:
    one, other = _ranges(tmp_path, "a"), _ranges(tmp_path, "b")
    base = one.take()
    other.mark(base)
    other.give_back(base)
    assert base not in [other.take() for _ in range(2 * RANGES)]
    one.close()
    other.close()


def test_all_blocks_lie_below_what_systemd_keeps() -> None:
    assert FIRST + BLOCKS * RANGES * IDS <= 0x7FFD_0000


def test_closing_leaves_no_claim_where_nothing_is_left(tmp_path: Path) -> None:
    ranges = _ranges(tmp_path, "a")
    ranges.take()
    ranges.close()
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["lock"]
