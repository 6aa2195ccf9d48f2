"""Pictures that come with the package: nothing is downloaded. LICENSES.md says whose they are."""

from pathlib import Path

FOLDER = Path(__file__).parent
DIGITS = FOLDER / "digits.npz"
PHOTOGRAPHS = {path.stem: path for path in sorted([*FOLDER.glob("*.png"), *FOLDER.glob("*.jpg")])}
