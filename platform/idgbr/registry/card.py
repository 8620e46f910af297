"""The model card of a registered version: description, training data, figures and limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader
from mlflow import MlflowClient

from idgbr.evaluation.bootstrap import Interval
from idgbr.evaluation.quantities import describe, heading_of, percent, shown
from idgbr.models.description import ModelSpec

CARD_FILE = "model_card.md"
_GATE = "\n## Gate\n"
_DESCRIPTION = 5000
"""Maximum length of a version's description, in characters; every store accepts this length."""


def model_card(
    label: str,
    spec: ModelSpec,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    intervals: Sequence[Interval] = (),
) -> str:
    """The card as Markdown.

    Args:
        label: NAME/VERSION.
        spec: the model's description.
        tags: tags of the version, of which `data` and `run` are used.
        metrics: figures by name, shares in 0..1; those of the coarse map are named coarse_FIGURE.
        intervals: confidence intervals of the differences, refined minus coarse.
    """
    # The card is Markdown, not HTML: HTML escaping would corrupt it.
    environment = Environment(
        loader=PackageLoader("idgbr.registry"), autoescape=False, trim_blocks=True, lstrip_blocks=True
    )
    worse = metrics.get("repair_worse")
    return environment.get_template(f"{CARD_FILE}.j2").render(
        label=label,
        spec=spec,
        tags=dict(tags),
        metrics=[
            f"{heading_of(name)}: {shown(name, value)}"
            + (f" (coarse map: {shown(name, metrics[f'coarse_{name}'])})" if f"coarse_{name}" in metrics else "")
            for name, value in metrics.items()
            if not name.startswith("coarse_")
        ],
        intervals=[f"{heading_of(i.metric)}: {describe(i)}" for i in intervals if i.difference is not None],
        worse=f"{percent(worse)} %" if worse else "",
    )


def keep_card(client: MlflowClient, name: str, version: str, card: str) -> None:
    """Writes a card to a version: as its description and as an artifact of its run."""
    client.update_model_version(name, version, description=card[:_DESCRIPTION])
    run_id = client.get_model_version(name, version).run_id
    if run_id:
        client.log_text(run_id, card, f"versions/{name}-{version}/{CARD_FILE}")


def add_verdict(client: MlflowClient, name: str, version: str, verdict: str) -> None:
    """Adds the verdict of a quality gate to the card of a version; replaces an earlier verdict.

    Args:
        client: the store.
        name: the registered model.
        version: its version.
        verdict: the verdict in Markdown.
    """
    card = client.get_model_version(name, version).description or ""
    keep_card(client, name, version, f"{card.partition(_GATE)[0].rstrip()}\n{_GATE}\n{verdict}\n")
