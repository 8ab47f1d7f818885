"""Install plug-ins of this folder as real distributions: `python wheels.py TARGET [NAME ...]`.

Each folder is one distribution: its modules, and the entry_points.txt it would have. It becomes
a wheel, and pip unpacks that into TARGET, so polynet finds it by the same route as anybody's.
"""

import base64
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

HERE = Path(__file__).parent
VERSION = "1.0"


def files(folder: Path) -> dict[str, str]:
    """What the wheel of `folder` holds: text by path."""
    info = f"{folder.name}-{VERSION}.dist-info"
    modules = sorted(folder.rglob("*.py"))
    held = {module.relative_to(folder).as_posix(): module.read_text() for module in modules}
    held[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {folder.name}\nVersion: {VERSION}\n"
    held[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    held[f"{info}/entry_points.txt"] = (folder / "entry_points.txt").read_text()
    lines = [f"{path},{digest(text)},{len(text.encode())}\n" for path, text in held.items()]
    held[f"{info}/RECORD"] = "".join([*lines, f"{info}/RECORD,,\n"])
    return held


def digest(text: str) -> str:
    """The hash of a file, as RECORD writes it."""
    code = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return f"sha256={code.decode().rstrip('=')}"


def build(folder: Path, into: str) -> str:
    """Write the wheel of `folder`; returns its path."""
    wheel = Path(into) / f"{folder.name}-{VERSION}-py3-none-any.whl"
    with ZipFile(wheel, "w") as archive:
        for path, text in files(folder).items():
            archive.writestr(path, text)
    return str(wheel)


def install(target: str, *names: str) -> None:
    """Install the distributions `names`, or all there are, into the folder `target`."""
    chosen = names or sorted(path.parent.name for path in HERE.glob("*/entry_points.txt"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-compile", "--target", target]
    with tempfile.TemporaryDirectory() as folder:
        wheels = [build(HERE / name, folder) for name in chosen]
        subprocess.run([*pip, *offline, *wheels], check=True)


if __name__ == "__main__":
    install(*sys.argv[1:])
