"""The wheel as a stranger meets it: installed without extras into an environment that is empty.

    python benchmarks/wheel.py [--python python3.12] [PIP_OPTION...]

Builds nothing: `make dist` has. Runs `--version`, `--help`, `zoo` and `diagnose` on both twins with
a text file, far from the source tree; checks that what is missing is told by the command that
brings it, that all data of the package is inside, and that the source archive is the repository:
nothing less, since its tests read most of it, and nothing more. Writes its part of
benchmarks/results.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from machine import write

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
TEXT = "The cat sat on the mat, and the dog lay beside it. Nobody saw them but the old clock.\n"
TWINS = ("zoo:bloom-mini-collapsed", "zoo:bloom-mini")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment")
    parser.add_argument("--venv", type=Path, help="make the environment here and keep it")
    options, pip_options = parser.parse_known_args()
    [wheel] = (ROOT / "dist").glob("*.whl")
    [source] = (ROOT / "dist").glob("*.tar.gz")
    wrong = [*wrong_in_wheel(wheel), *wrong_in_source(source)]
    if wrong:
        sys.exit("\n".join(wrong))
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        venv = options.venv or home / "venv"
        subprocess.run([options.python, "-m", "venv", str(venv)], check=True)
        python = venv / "bin" / "python"
        before = installed(venv)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", *pip_options, str(wheel)], check=True
        )
        use(venv / "bin" / "headsurgeon", home)
        sizes = {name: size for name, size in installed(venv).items() if name not in before}
    megabytes = {name: round(size / 1e6, 1) for name, size in sizes.items() if size > 5e6}
    own = wheel.stat().st_size
    write(
        "wheel",
        {
            "wheel_bytes": own,
            "own_bytes": sizes["headsurgeon"],
            "installed_bytes": sum(sizes.values()),
            "largest_megabytes": dict(sorted(megabytes.items(), key=lambda item: -item[1])),
        },
    )
    print(f"{wheel.name}: {own / 1e6:.2f} MB, installed {sum(sizes.values()) / 1e6:.0f} MB")


def tracked(folder: Path, *paths: str) -> set[str]:
    """The files that git knows below a folder."""
    listed = ["git", "ls-files", "-z", "--", *paths]
    done = subprocess.run(listed, cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stdout.split("\0")) - {""}


def wrong_in_wheel(wheel: Path) -> Iterator[str]:
    """A sentence for each file of the package that git knows and the wheel does not have."""
    with zipfile.ZipFile(wheel) as content:
        inside = set(content.namelist())
    for name in sorted(tracked(ROOT / "src", "headsurgeon") - inside):
        yield f"{wheel.name} lacks {name}"


def wrong_in_source(archive: Path) -> Iterator[str]:
    """A sentence for each file by which the source archive differs from the repository."""
    with tarfile.open(archive) as content:
        inside = {item.name.partition("/")[2] for item in content if item.isfile()} - {"PKG-INFO"}
    known = tracked(ROOT)
    for name in sorted(known - inside):
        yield f"{archive.name} lacks {name}"
    for name in sorted(inside - known):
        yield f"{archive.name} has {name}: have git know it, or .gitignore name it"


def use(command: Path, home: Path) -> None:
    """Does what the first page promises of an installation without extras."""
    (home / "text.txt").write_text(TEXT * 40, encoding="utf-8")
    plain = {"HF_HUB_OFFLINE": "1", "PATH": os.environ["PATH"], "HOME": str(home)}

    def run(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [str(command), *words], cwd=home, env=plain, capture_output=True, text=True
        )
        if done.returncode != code:
            sys.exit(f"{' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        print(f"ok  headsurgeon {' '.join(words)}")
        return done.stdout + done.stderr

    for word in ("--version", "--help", "zoo"):
        run(word)
    given = ("--corpus", "texts:text.txt")
    for twin in TWINS:
        output = twin.partition(":")[2]
        run("diagnose", twin, *given, "--output", output)
        diagnosis = json.loads((home / output / "diagnosis.json").read_text())
        print(f"    {diagnosis['counts']}")
    said = run("diagnose", *TWINS, *given, "--output", "both", code=2)
    if 'pip install "headsurgeon[report]"' not in said:
        sys.exit(f"a missing extra is not named: {said}")


def installed(venv: Path) -> dict[str, int]:
    """Bytes of every package of an environment, without what Python compiled itself."""
    (packages,) = venv.glob("lib/python*/site-packages")
    sizes: dict[str, int] = {}
    for path in packages.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.suffix != ".pyc":
            name = path.relative_to(packages).parts[0].partition("-")[0].removesuffix(".libs")
            sizes[name] = sizes.get(name, 0) + path.stat().st_size
    return sizes


def section(found: dict[str, object]) -> str:
    """What docs/benchmarks.md says of it."""
    largest = found["largest_megabytes"]
    assert isinstance(largest, dict)
    rows = "\n".join(f"| {name} | {size} |" for name, size in largest.items())
    wheel, own, tree = (
        float(str(found[key])) / 1e6 for key in ("wheel_bytes", "own_bytes", "installed_bytes")
    )
    return (
        f"The wheel has {wheel:.2f} MB, unpacked {own:.2f} MB; installed without extras into an "
        f"empty environment, with all it depends on, {tree:.0f} MB. Of these, in MB:\n\n"
        f"| package | MB |\n|---|---|\n{rows}"
    )


if __name__ == "__main__":
    main()
