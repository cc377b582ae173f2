"""The model that a run uploads when it is complete: whether that can work is asked before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..compat import http_errors
from ..errors import ConfigError, RunError, describe, first_line


def repository_name(args: Any) -> str:
    """The repository that a run uploads to: `hub_model_id`, or the name of `output_dir`."""
    return str(args.hub_model_id or Path(args.output_dir).name)


def name_errors(args: Any) -> list[str]:
    """What a hub would refuse of the repository's name, without being asked."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    if not args.push_to_hub:
        return []
    name, expected = repository_name(args), "NAME or OWNER/NAME of letters, digits, '-', '_' and '.'"
    try:
        validate_repo_id(name)
    except HFValidationError:
        return [describe("hub_model_id", f"{name!r}", expected, "Correct the name")]
    return []


def access_errors(args: Any) -> list[str]:
    """Why nothing can be uploaded from here, as far as it shows without asking a hub."""
    from huggingface_hub import constants, get_token

    if not args.push_to_hub:
        return []
    if constants.HF_HUB_OFFLINE:
        got, advice = "true with HF_HUB_OFFLINE in the environment", "Unset HF_HUB_OFFLINE, or remove push_to_hub"
        return [describe("push_to_hub", got, "a hub", advice)]
    if not (args.hub_token or get_token()):
        return [describe("push_to_hub", "no token", "one that may write", "Run `hf auth login`, or set HF_TOKEN")]
    return []


def open_repository(args: Any) -> str:
    """Make the repository and branch that a run uploads to, where they are not there.

    Returns:
        The repository's id, with its owner.

    Raises:
        ConfigError: the hub cannot be reached, or refuses token or name.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=args.hub_token)
    name = repository_name(args)
    try:
        found: str = api.create_repo(name, private=args.hub_private_repo, exist_ok=True).repo_id
        if args.hub_revision:
            api.create_branch(found, branch=args.hub_revision, exist_ok=True)
    except http_errors() as error:
        got, advice = first_line(error).rstrip("."), "Check the token and the name, or remove push_to_hub"
        got = f"a refusal for {name} ({got})"
        raise ConfigError("push_to_hub", got, "a hub that takes the model", advice) from error
    return found


def upload(model: Path, args: Any) -> None:
    """Upload the final model, and nothing else of the run.

    Raises:
        RunError: it cannot be uploaded; where it lies, for the same command tries again.
    """
    from huggingface_hub import HfApi

    refusals: tuple[type[BaseException], ...] = (ConfigError, *http_errors())
    try:
        name = open_repository(args)
        HfApi(token=args.hub_token).upload_folder(repo_id=name, folder_path=model, revision=args.hub_revision)
    except refusals as error:
        got = f"a trained model that is not uploaded ({first_line(error).rstrip('.')})"
        raise RunError(model, got, "an upload", "Repeat the command to upload it") from error
