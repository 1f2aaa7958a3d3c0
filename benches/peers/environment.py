"""The virtual environment beside this file, with the pinned requirements."""
import os
import pathlib
import subprocess
import sys
import venv

HERE = pathlib.Path(__file__).resolve().parent
ENVIRONMENT = HERE / ".venv"


def enter():
    """Runs the calling script again inside the environment; makes it first, or again when the requirements changed."""
    python = ENVIRONMENT / "bin" / "python"
    if pathlib.Path(sys.prefix).resolve() == ENVIRONMENT.resolve():
        return
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    wanted = (HERE / "requirements.txt").read_text()
    mark = ENVIRONMENT / "requirements.txt"
    if not mark.exists() or mark.read_text() != wanted:
        subprocess.check_call([python, "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"])
        mark.write_text(wanted)
    os.execv(python, [str(python), *sys.argv])
