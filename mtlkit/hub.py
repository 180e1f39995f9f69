"""The Hugging Face Hub: saving a model to be shared, sending it there and getting it back.

A shared model is a folder of three files: ``config.json`` and ``model.safetensors``, as in a run's
``model/``, and ``README.md``, its model card. Components are known by name in the plugins that
bring them, so no code travels with a model.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mtlkit.card import CARD, card
from mtlkit.checkpoint import save_model
from mtlkit.errors import CheckpointError

if TYPE_CHECKING:
    from mtlkit.model import Model

FILES = ("config.json", "model.safetensors")
"""What a model is read from."""
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def save(model: "Model", folder: Path, *, run: Path | None = None, name: str | None = None) -> None:
    """Write a model to be shared.

    Args:
        model: built by mtlkit.
        folder: of the three files. A card that is there already stays as it is.
        run: folder that the model comes from. Its card goes along if it has one, else one is
            written from what is known of the run.
        name: of the model in its card; by default that of the folder.

    Raises:
        CheckpointError: the model was put together by hand, so nobody knows what it is made of, or
            the folder cannot be written.
    """
    if not model.config:
        raise CheckpointError(
            "this model was put together by hand, so nothing says how to build it again; save one "
            "that mtlkit.fit, mtlkit.Trainer or mtlkit.load gave"
        )
    try:
        if run and (run / CARD).is_file():
            text = (run / CARD).read_text(encoding="utf-8")
        else:
            text = card(model, name or folder.resolve().name, run)
        save_model(folder, model, model.config)
        if not (folder / CARD).exists():
            (folder / CARD).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"cannot write the model to {folder}: {error.strerror}") from error


def push(
    model: "Model",
    repo_id: str,
    *,
    run: Path | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Model and card, by mtlkit",
) -> str:
    """Send a model to the Hub.

    Args:
        model: built by mtlkit.
        repo_id: ``USER/NAME``; it is made if it is not there.
        run: as in :func:`save`.
        private: whether only its owner sees it, if it is made; None is the owner's default.
        token: None for that of ``hf auth login`` or ``HF_TOKEN``.
        revision: the branch that gets it.
        commit_message: of the commit.

    Returns:
        Address of the commit.

    Raises:
        CheckpointError: the Hub cannot be reached or refuses, or the model cannot be saved.
    """
    from huggingface_hub import HfApi

    with TemporaryDirectory() as place:
        save(model, Path(place), run=run, name=repo_id)
        with _asking(f"cannot push to '{repo_id}'", "log in by hf auth login if you have not"):
            hub = HfApi(token=token, library_name="mtlkit")
            made = hub.create_repo(repo_id, private=private, exist_ok=True)
            sent = hub.upload_folder(
                repo_id=made.repo_id,
                folder_path=place,
                revision=revision,
                commit_message=commit_message,
            )
    return str(sent.commit_url)


def find(
    name: Path | str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: Path | str | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a model: a local one of this name, else what the Hub has under it.

    Args:
        name: a folder of a run or model, or ``USER/NAME`` on the Hub.
        revision: branch, tag or commit on the Hub.
        token: None for that of ``hf auth login`` or ``HF_TOKEN``.
        cache_dir: where downloads are kept; by default the Hub client's own place.
        local_files_only: take what was downloaded before, ask nobody.

    Raises:
        CheckpointError: there is no such folder, and the Hub has or gives none.
    """
    if Path(name).is_dir():
        return Path(name)
    if isinstance(name, Path) or not _NAME.fullmatch(name):
        raise CheckpointError(
            f"there is no folder {name}; give that of a run or model, or USER/NAME on the Hub"
        )
    from huggingface_hub import snapshot_download

    with _asking(f"no folder {name}, and cannot get it from the Hub", "look at the name, the "
                 "network, and hf auth login if it is private"):  # fmt: skip
        found = snapshot_download(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_patterns=[*FILES, CARD],
            library_name="mtlkit",
        )
    return Path(found)


@contextmanager
def _asking(what: str, advice: str) -> Iterator[None]:
    """Whatever the Hub's client raises, as one line.

    It passes on what its HTTP library raises, which is another one in each of its major versions.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise CheckpointError(f"{what}: {reason}; {advice}") from error
