"""Whose directories are used, and whose are not."""

import pytest

from shm.directory import base_directory, find_fleet, fleet_directories, make_private
from shm.errors import DirectoryRefused


def test_directories_are_private_parents_included(tmp_path):
    make_private(tmp_path / "feedwarden-x" / "fleet")
    for directory in (tmp_path / "feedwarden-x", tmp_path / "feedwarden-x" / "fleet"):
        assert directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_directory_that_others_write_is_refused(tmp_path, mode):
    tmp_path.chmod(mode)
    with pytest.raises(DirectoryRefused, match="writable by others"):
        make_private(tmp_path)
    tmp_path.chmod(0o700)


def test_links_and_files_are_refused(tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(DirectoryRefused, match="symbolic link"):
        make_private(tmp_path / "link")
    (tmp_path / "file").write_text("")
    with pytest.raises(DirectoryRefused):
        make_private(tmp_path / "file")


def test_fleets_are_found_below_every_user(tmp_path, monkeypatch):
    monkeypatch.setenv("FEEDWARDEN_SHM", str(tmp_path))
    assert base_directory() == tmp_path
    make_private(tmp_path / "feedwarden-77" / "theirs")
    assert find_fleet("theirs") == tmp_path / "feedwarden-77" / "theirs"
    assert [path.name for path in fleet_directories()] == ["theirs"]
    with pytest.raises(FileNotFoundError, match="no fleet 'mine'"):
        find_fleet("mine")
