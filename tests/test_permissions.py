"""Who may use the files of a store: modes whatever the umask, sharing within a group, links that strangers plant."""

import contextlib
import grp
import os
import pickle
import pwd
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from drivers.running import answer_of, ask_child, in_child, preload

from persistdict import MismatchError, OpenError, PersistDict, UnsafePathError, salvage
from persistdict.stores.lmdb import ownership
from persistdict.stores.lmdb.recent import recent_folder

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="modes, owners and links of POSIX"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),  # fork is what is used
]
ROOT = getattr(os, "geteuid", lambda: 1)() == 0
root_only = pytest.mark.skipif(not ROOT, reason="only root can become several users")
ANN, BOB, EVE = 20001, 20002, 20003
TEAM, OTHERS = 30001, 30002
RECENT = os.path.basename(recent_folder(""))
UMASKS = (0o000, 0o022, 0o002, 0o077, 0o777)


def as_user(work, user, groups=(), umask=0o022):
    """What `work` returns when it is done by this user, whose first group has the same number.

    Where one cannot become another user, by the one that runs the tests.
    """

    def become():
        os.umask(umask)
        if ROOT:
            os.setgroups(groups)
            os.setgid(user)
            os.setuid(user)
        return work()

    return ask_child(become)


def error_of(work, kind):
    """The message of the error of this kind that is raised."""
    try:
        work()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__} was raised")


def opened(path, **options):
    return PersistDict(path, background_thread="disabled", **options)


def fill(path, **options):
    """A store with whatever makes files: writes of all kinds, a compaction, a queue; and a backup beside it."""
    with opened(path, **options) as d:
        d["small"] = 1
        d["large"] = "x" * 200_000
        d.space("s")["k"] = 2
        d.queue("q").put("item")
        d.update({f"many {n}": n for n in range(2000)})
        d.flush()
        d.clear()
        d.compact()
        d["small"] = 1
        d.backup(str(path) + ".backup")
    return path


def modes(folder):
    """The mode of everything in a folder and of the folder itself, by path within it."""
    found = {".": stat.S_IMODE(os.lstat(folder).st_mode)}
    for path in Path(folder).rglob("*"):
        found[str(path.relative_to(folder))] = stat.S_IMODE(path.lstat().st_mode)
    return found


def modes_with(folder_mode, file_mode, *, recent=True, backup=False):
    """What `modes` gives for a store whose folders and files have these."""
    names = ("data.mdb",) if backup else ("data.mdb", "lock.mdb", "gate.lock", "flags.map")
    found = {".": folder_mode} | dict.fromkeys(names, file_mode)
    if recent and not backup:
        found |= {RECENT: folder_mode} | {
            f"{RECENT}/{name}": file_mode for name in ("data.mdb", "lock.mdb", "latest.map")
        }
    return found


@pytest.fixture
def commons():
    """A folder of root's into which others may look, with a folder for each user, and one that is like /tmp."""
    fill_once()
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    for name, user in (("ann", ANN), ("bob", BOB), ("eve", EVE)):
        os.mkdir(f"{folder}/{name}")
        os.chmod(f"{folder}/{name}", 0o755)
        give(f"{folder}/{name}", user)
    os.mkdir(f"{folder}/tmp")
    os.chmod(f"{folder}/tmp", 0o1777)
    yield folder
    shutil.rmtree(folder)


def fill_once():
    """Import what is imported on use: other users may not be able to read where it lies."""
    if not fill_once.__dict__:
        preload()
        with tempfile.TemporaryDirectory() as folder:
            salvage(fill(f"{folder}/d"), f"{folder}/salvaged")
        fill_once.done = True


def give(path, user, group=None):
    if ROOT:
        os.chown(path, user, user if group is None else group)


def shared_folder(path, mode=0o770):
    """A folder of Ann's that the team shares."""
    os.mkdir(path)
    os.chown(path, ANN, TEAM)
    os.chmod(path, mode)
    return path


# Modes


def test_the_folder_is_0700_and_files_are_0600_whatever_the_umask(commons):
    """Also those of backups, of what was salvaged, and for umasks that take everything from the user too."""
    for umask in UMASKS:
        path = f"{commons}/ann/{umask:o}"
        as_user(lambda path=path: str(fill(path)), ANN, umask=umask)
        assert modes(path) == modes_with(0o700, 0o600)
        assert modes(path + ".backup") == modes_with(0o700, 0o600, backup=True)

        def rescue(path=path):
            return salvage(path, path + ".salvaged").written

        assert as_user(rescue, ANN, umask=umask) > 0
        assert modes(path + ".salvaged") == modes_with(0o700, 0o600, recent=False)


def test_permissions_are_those_of_the_folder_and_its_files_whatever_the_umask(commons):
    """A backup is its maker's alone all the same."""
    for umask in UMASKS:
        for permissions in (0o750, 0o770, 0o755, 0o775):
            path = f"{commons}/ann/{umask:o}-{permissions:o}"
            as_user(lambda path=path, wide=permissions: str(fill(path, permissions=wide)), ANN, umask=umask)
            assert modes(path) == modes_with(permissions, permissions & 0o666)
            assert modes(path + ".backup") == modes_with(0o700, 0o600, backup=True)


def test_folders_above_are_left_to_the_umask(commons):
    as_user(lambda: str(fill(f"{commons}/ann/a/b/c", permissions=0o770)), ANN, umask=0o027)
    assert modes(f"{commons}/ann/a")["."] == modes(f"{commons}/ann/a/b")["."] == 0o750


def test_what_is_made_later_has_the_mode_of_the_data(commons):
    """Recent writes after a start of the machine, a compacted copy, a lost lock file: nobody need say it again."""
    path = f"{commons}/ann/d"
    as_user(lambda: str(fill(path, permissions=0o750)), ANN)
    for name in (RECENT, "lock.mdb", "gate.lock", "flags.map"):
        shutil.rmtree(f"{path}/{name}") if name == RECENT else os.unlink(f"{path}/{name}")
    shutil.rmtree(f"{path}.backup")
    as_user(lambda: str(fill(path)), ANN, umask=0o077)
    assert modes(path) == modes_with(0o750, 0o640)


def test_a_folder_that_is_there_is_widened_for_a_new_store_and_never_narrowed(commons):
    for before, permissions, after in ((0o700, 0o770, 0o770), (0o755, 0o770, 0o775), (0o755, 0o700, 0o755)):
        path = f"{commons}/ann/{before:o}-{permissions:o}"
        os.mkdir(path)
        give(path, ANN)
        os.chmod(path, before)
        as_user(lambda path=path, wide=permissions: str(fill(path, permissions=wide)), ANN)
        assert modes(path) == modes_with(0o700, permissions & 0o666) | {".": after, RECENT: permissions}


def test_a_store_that_was_made_with_less_is_refused_and_told_how_to_change(commons):
    """Its files are not touched; with the command of the message it can be opened."""
    path = f"{commons}/ann/d"
    as_user(lambda: str(fill(path)), ANN)

    def widen():
        message = error_of(lambda: opened(path, permissions=0o770), MismatchError)
        assert modes(path) == modes_with(0o700, 0o600)
        assert message.endswith(f"chmod -R u=rwX,g=rwX,o= {path}"), message
        assert os.system(message[message.index("chmod -R") :]) == 0
        with opened(path, permissions=0o770) as d:
            return dict(d)

    assert as_user(widen, ANN) == {"small": 1}
    assert modes(path) == modes_with(0o770, 0o660)


def test_permissions_that_make_no_sense_are_refused(commons):
    for wrong in (0o600, 0o077, 0o777, 0o702, 0o710, 0o1770, -1):
        with pytest.raises(ValueError, match="permissions must be one of 0o700, 0o750, 0o755, 0o770, 0o775"):
            opened(f"{commons}/d", permissions=wrong)
    assert not os.path.exists(f"{commons}/d")
    with pytest.raises(ValueError, match="permissions have an effect only on a folder"):
        opened("memory://", permissions=0o770)


def test_permissions_travel_with_a_pickled_handle(commons):
    with opened(f"{commons}/d", permissions=0o770) as d:
        stored = pickle.dumps(d)
    shutil.rmtree(f"{commons}/d")
    with pickle.loads(stored) as d:
        d["k"] = 1
        assert modes(f"{commons}/d") == modes_with(0o770, 0o660)


# Sharing


@root_only
def test_a_group_shares_a_store(commons):
    """Each of the two reads and writes what the other has made, whoever made the files, with any umask."""
    for umask in UMASKS:
        path = shared_folder(f"{commons}/{umask:o}")

        def work(name, path=path):
            with opened(path, permissions=0o770) as d:
                for n in range(3):
                    d.incr("count")
                    d[name, n] = "x" * 50_000 * n
                d.queue("q").put(name)
                d.flush()
                d.compact()
                d[name] = sorted(map(str, d))
                return d["count"]

        found = [
            as_user(lambda name=name, work=work: work(name), user, [TEAM], umask)
            for name, user in (("ann", ANN), ("bob", BOB), ("ann", ANN), ("bob", BOB))
        ]
        assert found == [3, 6, 9, 12]
        assert modes(path) == modes_with(0o770, 0o660)
        assert {path.stat().st_gid for path in Path(path).rglob("*")} == {TEAM}
        assert os.stat(f"{path}/data.mdb").st_uid == BOB  # who compacted last


@root_only
def test_a_group_shares_a_store_at_the_same_time(commons):
    """Bob writes while Ann has it open, and both see all of it; also in a folder that hands down its group."""
    for mode in (0o770, 0o2770):
        path = shared_folder(f"{commons}/{mode:o}", mode)
        go, told = os.pipe(), os.pipe()

        def ann(path=path, go=go, told=told):
            os.close(go[1])  # so that the end of the test is the end of the wait
            os.setgroups([TEAM])
            os.setgid(ANN)
            os.setuid(ANN)
            with opened(path, permissions=0o770) as d:
                d["ann"] = 1
                os.write(told[1], b"x")
                os.read(go[0], 1)
                d["more"] = d["bob"] + 1
                return dict(d)

        def bob(path=path):
            with opened(path, permissions=0o770) as d:
                d["bob"] = d["ann"] + 1
                return dict(d)

        first = in_child(ann)
        os.read(told[0], 1)
        try:
            assert as_user(bob, BOB, [TEAM]) == {"ann": 1, "bob": 2}
        finally:
            os.close(go[1])
        assert answer_of(*first) == {"ann": 1, "bob": 2, "more": 3}
        for end in (go[0], *told):
            os.close(end)


@root_only
def test_who_does_not_say_so_shares_nothing(commons):
    """Bob is refused without permissions=0o770, and so is Ann, into whose folder others can put files."""
    path = shared_folder(f"{commons}/ann/d")
    as_user(lambda: str(fill(path, permissions=0o770)), ANN, [TEAM])
    before = modes(path)
    for permissions in (0o700, 0o750, 0o755):

        def attempt(permissions=permissions):
            return error_of(lambda: opened(path, permissions=permissions), UnsafePathError)

        assert "permissions=0o770" in as_user(attempt, BOB, [TEAM])
        assert f"writable by the group {TEAM}" in as_user(attempt, ANN, [TEAM])
    assert modes(path) == before


@root_only
def test_strangers_are_refused_whatever_they_say(commons):
    """Whose group it is not: of the folder, or of a file in it. Also root, and also where the group may only read."""
    path = shared_folder(f"{commons}/ann/d")
    as_user(lambda: str(fill(path, permissions=0o770)), ANN, [TEAM])

    def attempt():
        return error_of(lambda: opened(path, permissions=0o770), (UnsafePathError, OpenError))

    os.chmod(path, 0o775)
    assert f"belongs to the user {ANN}" in as_user(attempt, EVE, [OTHERS])
    assert f"belongs to the user {ANN}" in attempt()  # root
    recent = [RECENT, *(f"{RECENT}/{name}" for name in ("data.mdb", "lock.mdb", "latest.map"))]
    for name in ("data.mdb", "lock.mdb", "gate.lock", "flags.map", *recent):
        os.chown(f"{path}/{name}", EVE, OTHERS)
        assert f"belongs to the user {EVE}" in as_user(attempt, ANN, [TEAM, OTHERS]), name
        os.chown(f"{path}/{name}", ANN, TEAM)
    os.chmod(path, 0o755)
    assert f"belongs to the user {ANN}" in as_user(attempt, BOB, [TEAM])


@root_only
def test_a_folder_that_a_group_may_write_to_is_refused_unless_the_group_is_the_users_own(commons, monkeypatch):
    """Where everybody has a group of their own, the umask is 002 and all folders look so."""
    folder = shared_folder(f"{commons}/d", 0o775)
    os.chown(folder, 0, 0)
    user = pwd.getpwuid(0)
    private = grp.struct_group((user.pw_name, "x", user.pw_gid, []))
    cases = {
        "the user's own": (private, True),
        "with the user as the member": (grp.struct_group((user.pw_name, "x", 0, [user.pw_name])), True),
        "with another member": (grp.struct_group((user.pw_name, "x", 0, ["eve"])), False),
        "of another name": (grp.struct_group(("staff", "x", 0, [])), False),
    }
    for what, (group, accepted) in cases.items():
        monkeypatch.setattr(grp, "getgrgid", lambda number, group=group: group)
        if accepted:
            opened(folder).close()
        else:
            with pytest.raises(UnsafePathError, match="writable by the group 0; chmod g-w it"):
                opened(folder)
        with opened(folder, permissions=0o770) if not accepted else contextlib.nullcontext():
            assert os.path.exists(f"{folder}/data.mdb"), what
        shutil.rmtree(folder)
        os.mkdir(folder)
        os.chmod(folder, 0o775)
    monkeypatch.undo()
    os.chown(folder, 0, TEAM)  # a group that has no name
    with pytest.raises(UnsafePathError, match=f"writable by the group {TEAM}"):
        opened(folder)
    assert not ownership._is_private_group(TEAM)


# Links and other things that strangers plant


@root_only
def test_a_link_that_a_stranger_has_put_into_a_common_folder_is_refused(commons):
    """At the end of the path and in its midst, for stores, backups and salvage; what it leads to stays as it is."""
    as_user(lambda: str(fill(f"{commons}/ann/d")), ANN)
    as_user(lambda: os.mkdir(f"{commons}/ann/empty"), ANN)
    as_user(lambda: os.symlink(f"{commons}/ann/empty", f"{commons}/tmp/cache"), EVE)
    as_user(lambda: os.symlink(f"{commons}/ann", f"{commons}/tmp/above"), EVE)
    as_user(lambda: os.symlink("cache", f"{commons}/tmp/by-ann"), ANN)

    def attempt():
        refusals = []
        for path in ("cache", "above/new", "by-ann", "../tmp/cache", "above/../above/empty"):
            place = f"{commons}/tmp/{path}"
            refusals.append(error_of(lambda place=place: opened(place), UnsafePathError))
            with opened(f"{commons}/ann/d") as d:
                refusals.append(error_of(lambda place=place, d=d: d.backup(place), UnsafePathError))
            refusals.append(error_of(lambda place=place: salvage(f"{commons}/ann/d", place), UnsafePathError))
        return refusals

    for refusal in as_user(attempt, ANN):
        assert f"is a link that the user {EVE} has put there" in refusal
    assert os.listdir(f"{commons}/ann/empty") == []
    assert sorted(os.listdir(f"{commons}/ann")) == ["d", "d.backup", "empty"]


@root_only
def test_links_of_ones_own_of_root_and_of_the_owner_of_the_folder_are_followed(commons):
    """As on a system whose /var/run or /home is a link; and Bob may have one to his own in his folder."""
    as_user(lambda: os.symlink(f"{commons}/ann/real", f"{commons}/tmp/mine"), ANN)
    os.symlink("ann/real", f"{commons}/home")
    as_user(lambda: os.symlink("../ann/real", f"{commons}/bob/link"), BOB)

    def count():
        found = []
        for path in ("tmp/mine", "home", "bob/link", "ann/real", "ann/../tmp/mine/."):
            with opened(f"{commons}/{path}") as d:
                found.append(d.incr("count"))
        return found

    assert as_user(count, ANN) == [1, 2, 3, 4, 5]


def test_a_circle_of_links_is_refused(commons):
    for name, target in (("a", "b"), ("b", "./a"), ("loop", "loop/x")):
        os.symlink(target, f"{commons}/{name}")
    for name in ("a", "b/c", "loop"):
        with pytest.raises(OpenError, match="circle"):
            opened(f"{commons}/{name}")


def test_recent_writes_that_are_a_link_or_have_links_are_never_written_through(commons):
    """A link in the place of their folder is replaced; a file in it that is one, or has another name, is refused."""
    path = f"{commons}/ann/d"
    fill(path)
    victim = f"{commons}/victim"
    shutil.copytree(f"{path}/{RECENT}", victim)
    before = {name: Path(victim, name).read_bytes() for name in os.listdir(victim)}
    for name in ("data.mdb", "lock.mdb"):
        for plant in (os.symlink, os.link, lambda _, place: os.mkfifo(place)):
            os.unlink(f"{path}/{RECENT}/{name}")
            plant(f"{victim}/{name}", f"{path}/{RECENT}/{name}")
            with pytest.raises(UnsafePathError):
                opened(path)
            os.unlink(f"{path}/{RECENT}/{name}")
            shutil.copy(f"{victim}/{name}", f"{path}/{RECENT}/{name}")
    shutil.rmtree(f"{path}/{RECENT}")
    os.symlink(victim, f"{path}/{RECENT}")
    with opened(path) as d:
        d["k"] = 1
        assert not os.path.islink(f"{path}/{RECENT}")
    assert {name: Path(victim, name).read_bytes() for name in os.listdir(victim)} == before


def test_a_file_that_everybody_may_write_to_is_refused(commons):
    path = fill(f"{commons}/d")
    for name in ("data.mdb", "lock.mdb", "gate.lock", "flags.map", f"{RECENT}/data.mdb", f"{RECENT}/latest.map"):
        os.chmod(f"{path}/{name}", 0o606)
        with pytest.raises(UnsafePathError, match="writable by everybody"):
            opened(path)
        os.chmod(f"{path}/{name}", 0o600)
    opened(path).close()


def test_nothing_is_made_in_a_common_folder_but_under_the_name_that_was_given(commons):
    """Nobody can put something in the place of a file that is made: all are made within the store's own folder."""
    path = f"{commons}/tmp/d"

    def work():
        tempfile.tempdir = f"{commons}/nowhere"  # who asks for a temporary folder fails
        fill(path)
        with opened(path) as d:
            report = d.verify(repair=True)
        salvage(path, f"{path}.salvaged")
        return report.ok

    assert as_user(work, ANN)
    assert sorted(os.listdir(f"{commons}/tmp")) == ["d", "d.backup", "d.salvaged"]
