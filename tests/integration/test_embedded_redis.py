"""The embedded Redis, with a real server and real processes that are killed."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, Popen, run

import pytest
import redis

from labrelay.errors import BootError
from labrelay.settings import ProducerSettings
from labrelay_worker.embedded import EmbeddedRedis, binary, find_redis_server, stop_embedded
from labrelay_worker.embedded import server as process
from labrelay_worker.private_folders import socket_path

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform == "win32", reason="the embedded server is for POSIX systems"),
]

_USER = """
import sys
from pathlib import Path
from labrelay_worker.embedded import EmbeddedRedis
with EmbeddedRedis(Path(sys.argv[1])) as url:
    print(url, flush=True)
    sys.stdin.read()
"""

_FORKING_USER = """
import os
import sys
from pathlib import Path
import redis
from labrelay_worker.embedded import EmbeddedRedis, stop_embedded
folder = Path(sys.argv[1])
server = EmbeddedRedis(folder)
url = server.start()
child = os.fork()
if child == 0:
    server.stop()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
with redis.Redis.from_url(url) as client:
    client.ping()
print("held", not stop_embedded(folder))
server.stop()
print("released", not (folder / "url").exists())
"""


def wait_until(condition: Callable[[], bool], timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    # A killed server may stay a zombie where nothing reaps orphans, as in some containers.
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def server_pid(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.info("server")["process_id"])


def ask(url: str, *command: str) -> object:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return client.execute_command(*command)


@pytest.fixture(autouse=True)
def own_temp_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    # Sockets of long folders go there; the test's own name would make it too long again.
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("t")))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "redis"
    yield place
    end_server_of(place)


def end_server_of(place: Path) -> None:
    with suppress(FileNotFoundError, ValueError, ProcessLookupError):
        os.kill(int((place / "pid").read_text()), signal.SIGKILL)


@pytest.fixture
def start_user(folder: Path) -> Iterator[Callable[[], Popen[str]]]:
    users: list[Popen[str]] = []

    def start() -> Popen[str]:
        user = Popen([sys.executable, "-c", _USER, str(folder)], stdin=PIPE, stdout=PIPE, text=True)
        users.append(user)
        return user

    yield start
    for user in users:
        user.kill()
        user.communicate()


def address_of(user: Popen[str]) -> str:
    assert user.stdout is not None
    return user.stdout.readline().strip()


def let_go(user: Popen[str]) -> None:
    user.communicate(timeout=30)
    assert user.returncode == 0


def test_a_started_server_answers_keeps_its_data_on_disk_and_is_private(folder: Path) -> None:
    with EmbeddedRedis(folder) as url:
        assert ask(url, "PING") is True
        assert ask(url, "CONFIG", "GET", "appendonly") == {"appendonly": "yes"}
        assert ask(url, "CONFIG", "GET", "appendfsync") == {"appendfsync": "everysec"}
        assert ask(url, "CONFIG", "GET", "maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert ask(url, "CONFIG", "GET", "save") == {"save": ""}
        assert ask(url, "CONFIG", "GET", "port") == {"port": "0"}
        assert int((folder / "pid").read_text()) == server_pid(url)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "redis.sock").stat().st_mode) == 0o700


def test_the_producer_finds_a_running_server_by_its_settings(tmp_path: Path) -> None:
    settings = ProducerSettings(home=tmp_path, redis_url=None)
    try:
        with EmbeddedRedis(settings.embedded_folder) as url:
            assert settings.resolve_redis_url() == url
    finally:
        end_server_of(settings.embedded_folder)


def test_the_last_user_to_stop_ends_the_server_and_the_data_is_there_next_time(folder: Path) -> None:
    first = EmbeddedRedis(folder)
    url = first.start()
    pid = server_pid(url)
    with EmbeddedRedis(folder) as same:
        assert same == url
        assert server_pid(same) == pid
    assert ask(url, "SET", "kept", "yes") is True

    first.stop()

    assert not is_alive(pid)
    assert not (folder / "url").exists()
    with EmbeddedRedis(folder) as again:
        assert ask(again, "GET", "kept") == "yes"


def test_stopping_twice_or_before_starting_does_no_harm(folder: Path) -> None:
    server = EmbeddedRedis(folder)
    server.stop()
    server.start()
    server.stop()
    server.stop()
    assert stop_embedded(folder)


def test_a_server_that_was_killed_is_replaced_and_keeps_what_it_confirmed(folder: Path) -> None:
    with EmbeddedRedis(folder) as url:
        ask(url, "SET", "kept", "yes")
        pid = server_pid(url)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid))
        assert (folder / "url").exists()
        assert (folder / "redis.sock").exists()

        with EmbeddedRedis(folder) as fresh:
            assert server_pid(fresh) != pid
            assert ask(fresh, "GET", "kept") == "yes"


def test_starting_again_brings_back_a_killed_server_under_the_same_hold(folder: Path) -> None:
    with EmbeddedRedis(folder) as first_url:
        pass
    server = EmbeddedRedis(folder)
    try:
        pid = server_pid(server.start())
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid))
        assert server.start() == first_url
        assert not stop_embedded(folder)
    finally:
        server.stop()
    assert not (folder / "url").exists()


def test_a_killed_user_does_not_keep_the_server_alive(folder: Path, start_user: Callable[[], Popen[str]]) -> None:
    user = start_user()
    url = address_of(user)
    pid = server_pid(url)
    assert not stop_embedded(folder)

    user.kill()
    user.wait()

    assert server_pid(url) == pid  # it is left behind, and found by the next one
    with EmbeddedRedis(folder) as joined:
        assert server_pid(joined) == pid
    assert not is_alive(pid)


def test_down_stops_a_server_left_behind(folder: Path, start_user: Callable[[], Popen[str]]) -> None:
    user = start_user()
    pid = server_pid(address_of(user))
    user.kill()
    user.wait()

    assert stop_embedded(folder)
    assert not is_alive(pid)
    assert stop_embedded(folder)


@pytest.mark.timeout(120)
def test_a_worker_that_has_to_end_itself_leaves_no_server_behind(tmp_path: Path) -> None:
    # Given `labrelay up`, of which Celery will not come to an end
    plugin = Path(__file__).parents[1] / "plugins" / "stalling"
    settings = {"LABRELAY_HOME": str(tmp_path / "home"), "LABRELAY_DRAIN_SECONDS": "0", "PYTHONPATH": str(plugin)}
    place, log = tmp_path / "home" / "redis", tmp_path / "up.log"
    with log.open("wb") as output:
        up = Popen([sys.executable, "-m", "labrelay", "up"], env=os.environ | settings, stdout=output, stderr=output)
    try:
        wait_until(lambda: up.poll() is not None or " ready." in log.read_text(), 60)
        server = int((place / "pid").read_text())

        # When it is stopped
        up.terminate()

        # Then it ends itself in time, and the server ends with it
        assert up.wait(60) == 0
        assert "Celery did not end by itself" in log.read_text()
        wait_until(lambda: not is_alive(server))
    finally:
        up.kill()
        up.wait()
        end_server_of(place)


def test_down_of_a_folder_that_never_was_creates_nothing(tmp_path: Path) -> None:
    assert stop_embedded(tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_processes_that_start_at_once_share_one_server(folder: Path, start_user: Callable[[], Popen[str]]) -> None:
    users = [start_user() for _ in range(5)]
    urls = {address_of(user) for user in users}
    assert len(urls) == 1
    pid = server_pid(urls.pop())
    assert (folder / "redis.log").read_text().count("Redis is starting") == 1

    for user in users[:-1]:
        let_go(user)
        assert is_alive(pid)
    let_go(users[-1])
    assert not is_alive(pid)


def test_a_forked_copy_that_stops_leaves_the_hold_of_its_parent_alone(folder: Path) -> None:
    command = [sys.executable, "-c", _FORKING_USER, str(folder)]
    answer = run(command, capture_output=True, text=True, timeout=60, check=False)
    assert answer.stderr == ""
    assert answer.stdout.split() == ["held", "True", "released", "True"]


def test_the_server_does_not_inherit_secrets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABRELAY_DESTINATIONS__HOOK__TOKEN", "tell-nobody")
    with EmbeddedRedis(folder) as url:
        environment = Path(f"/proc/{server_pid(url)}/environ")
        if not environment.exists():
            pytest.skip("this system does not show the environment of a process")
        assert b"tell-nobody" not in environment.read_bytes()


def test_the_server_is_in_a_session_of_its_own(folder: Path) -> None:
    with EmbeddedRedis(folder) as url:
        assert os.getsid(server_pid(url)) != os.getsid(0)


@pytest.mark.parametrize("name", ["x" * 120, "with blank, percent%20 and #?é"])
def test_any_folder_name_works(tmp_path: Path, name: str) -> None:
    place = tmp_path / name
    try:
        with EmbeddedRedis(place) as url:
            assert ask(url, "SET", "a", "b") is True
            assert ask(url, "CONFIG", "GET", "dir") == {"dir": str(place)}
    finally:
        end_server_of(place)


def test_a_long_folder_gets_a_private_socket_that_others_can_join_from_another_tmpdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / ("x" * 120)
    try:
        with EmbeddedRedis(place) as url:
            socket = Path(url.removeprefix("unix://"))
            assert len(os.fsencode(socket)) < 104
            assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
            monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
            with EmbeddedRedis(place) as joined:
                assert joined == url
    finally:
        end_server_of(place)


@pytest.mark.parametrize("trap", ["link", "open folder"])
def test_a_socket_folder_prepared_by_somebody_else_is_refused(
    trap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / ("x" * 120)
    temp = tmp_path / "t"
    temp.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temp))
    private = socket_path(place, "redis.sock").parent
    private.rmdir()
    if trap == "link":
        private.symlink_to(tmp_path)
    else:
        private.mkdir()
        private.chmod(0o777)

    with pytest.raises(BootError, match="is not private to this user"):
        EmbeddedRedis(place).start()


def test_without_any_server_the_error_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(BootError) as caught:
        EmbeddedRedis(folder).start()
    assert 'pip install "labrelay[embedded]"' in str(caught.value)
    assert "LABRELAY_REDIS_URL" in str(caught.value)
    assert stop_embedded(folder)


def test_without_the_wheel_a_server_on_the_path_is_used(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "redis-server").symlink_to(find_redis_server(folder))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert find_redis_server(folder) == tmp_path / "redis-server"
    with EmbeddedRedis(folder) as url:
        assert ask(url, "PING") is True


def test_data_of_a_newer_redis_is_not_opened_by_an_older_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "appendonlydir").mkdir(parents=True)
    monkeypatch.setattr(binary, "_major_version", lambda server: 6)
    with pytest.raises(BootError, match="Redis 7 or newer"):
        EmbeddedRedis(folder).start()


def test_a_damaged_append_only_file_is_reported_with_the_last_log_lines(folder: Path) -> None:
    folder.mkdir()
    (folder / "appendonly.aof").write_bytes(b"this is not an append-only file\n" * 100)
    with pytest.raises(BootError, match=r"ended while starting[\s\S]*Bad file format"):
        EmbeddedRedis(folder).start()
    assert not (folder / "url").exists()


def test_a_server_that_still_loads_its_data_is_waited_for(folder: Path) -> None:
    folder.mkdir()
    entry = b"*3\r\n$3\r\nSET\r\n$%d\r\n%d\r\n$1\r\nx\r\n"
    with (folder / "appendonly.aof").open("wb") as aof:
        aof.writelines(entry % (len(str(number)), number) for number in range(300_000))
    with EmbeddedRedis(folder) as url:
        assert ask(url, "DBSIZE") == 300_000


def test_a_server_that_does_not_answer_is_named_and_never_doubled(folder: Path) -> None:
    with EmbeddedRedis(folder) as url:
        pid = server_pid(url)
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(BootError, match=rf"process {pid}\) does not answer after 1 s"):
                EmbeddedRedis(folder, patience=1).start()
        finally:
            os.kill(pid, signal.SIGCONT)
        assert server_pid(url) == pid
        assert (folder / "redis.log").read_text().count("Redis is starting") == 1


def test_a_server_whose_socket_is_gone_is_still_stopped(folder: Path) -> None:
    server = EmbeddedRedis(folder)
    pid = server_pid(server.start())
    (folder / "redis.sock").unlink()
    monkey = pytest.MonkeyPatch()
    monkey.setattr(process, "STOP_SECONDS", 0.5)
    try:
        server.stop()
    finally:
        monkey.undo()
    assert not is_alive(pid)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BootError, match="cannot use"):
        EmbeddedRedis(tmp_path / "file" / "redis").start()
