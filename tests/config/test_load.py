"""Experiments: files, environment, overrides, and complaints a person can act on."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from idgbr.config.data import FolderSource, SyntheticSource
from idgbr.config.keys import nearest, walk
from idgbr.config.load import load_experiment, read_yaml
from idgbr.config.tree import Experiment
from idgbr.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"

CLASSES = [{"name": "ground", "colour": "#000000"}, {"name": "roof", "colour": "#ff0000"}]


def write(path: Path, **sections: object) -> Path:
    data = {"name": "toy", "source": {"kind": "synthetic", "folder": "scenes"}, "classes": CLASSES}
    data |= sections.pop("data", {})  # type: ignore[arg-type]
    path.write_text(yaml.safe_dump({"data": data} | sections))
    return path


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    return write(tmp_path / "toy.yaml")


def experiments() -> list[Path]:
    # Manifests of Kubernetes hold several documents and are checked in tests/deployment.
    several = {path: list(yaml.safe_load_all(path.read_text())) for path in sorted(CONFIGS.rglob("*.yaml"))}
    found = [path for path, documents in several.items() if len(documents) == 1 and "data" in documents[0]]
    return found


@pytest.mark.parametrize("path", experiments(), ids=lambda path: str(path.relative_to(CONFIGS)))
def test_every_experiment_in_configs_loads(path: Path) -> None:
    assert load_experiment(path).data.classes


def test_override_wins_over_the_file_and_leaves_its_neighbours(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", training={"refiner": {"steps": 3, "batch": 2}})
    training = load_experiment(path, {"training.refiner.steps": "400"}).training.refiner
    assert (training.steps, training.batch) == (400, 2)


def test_a_section_set_in_part_keeps_its_own_defaults(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", training={"refiner": {"steps": 3}})
    training = load_experiment(path).training
    assert (training.refiner.ema, training.refiner.precision) == (0.99, "auto")
    assert (training.coarse.ema, training.coarse.precision) == (0.0, "auto")


def test_another_kind_of_source_drops_the_keys_of_the_old_one(toy: Path) -> None:
    source = load_experiment(toy, {"data.source.kind": "folder", "data.source.images": ["a.tif"]}).data.source
    assert source == FolderSource(images=["a.tif"])


def test_kind_and_keys_may_come_in_any_order(toy: Path) -> None:
    source = load_experiment(toy, {"data.source.images": ["a.tif"], "data.source.kind": "folder"}).data.source
    assert source == FolderSource(images=["a.tif"])


def test_environment_variables_with_and_without_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.yaml", data={"source": {"kind": "synthetic", "folder": "${SCENES:-.data}/toy"}})
    monkeypatch.delenv("SCENES", raising=False)
    source = load_experiment(path).data.source
    assert isinstance(source, SyntheticSource)
    assert source.folder == ".data/toy"
    monkeypatch.setenv("SCENES", "/imagery")
    source = load_experiment(path).data.source
    assert isinstance(source, SyntheticSource)
    assert source.folder == "/imagery/toy"


def test_unset_variable_without_default_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.yaml", data={"source": {"kind": "synthetic", "folder": "${SCENES}/toy"}})
    monkeypatch.delenv("SCENES", raising=False)
    with pytest.raises(UserError, match=r"a\.yaml: data\.source\.folder: .* SCENES is not set"):
        load_experiment(path)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"training": {"refinr": {}}}, "training.refinr: unknown key; the nearest known key is training.refiner "),
        ({"traning": {}}, "traning: unknown key; the nearest known key is training "),
        ({"training": {"steps": 4}}, "training.steps: unknown key; the nearest known key is training.coarse.steps "),
        ({"data": {"band": [1]}}, "data.band: unknown key; the nearest known key is data.bands "),
        (
            {"data": {"source": {"kind": "folder", "images": [], "label": []}}},
            "data.source.label: unknown key; the nearest known key is data.source.labels ",
        ),
        ({"training": {"refiner": {"steps": "many"}}}, "training.refiner.steps: found 'many'; expected a whole number"),
        ({"training": {"refiner": {"steps": 0}}}, "training.refiner.steps: found 0; expected at least 1"),
        ({"sampler": {"dihedral": "perhaps"}}, "sampler.dihedral: found 'perhaps'; expected true or false"),
        ({"sampler": 4}, "sampler: found 4; expected a section of keys"),
        ({"refiner": {"channels": 64}}, "refiner.channels: found 64; expected a list"),
        ({"refiner": {"codec": "vae"}}, "refiner.codec: found 'vae'; expected one of 'lossless' or 'kl-vae'"),
        ({"data": {"source": {"kind": "bucket"}}}, "data.source.kind: found 'bucket'; expected one of 'folder'"),
        ({"data": {"source": {"folder": "x"}}}, "data.source.kind: missing"),
        ({"data": {"source": {"kind": "folder"}}}, "data.source.images: missing"),
        ({"data": {"classes": [CLASSES[0], {"name": "x", "colour": "red"}]}}, "data.classes[1].colour: found 'red'"),
        ({"data": {"classes": CLASSES[:1]}}, "expected at least 2 entries"),
        (
            {"inference": {"coarse": {"window": 64, "overlap": 40}}},
            "inference.coarse: overlap 40 must be at most half of window 64",
        ),
        ({"data": {"classes": [CLASSES[0], CLASSES[0]]}}, "twice; expected a name of its own for every class"),
        ({"data": {"label": {"kind": "colour", "ignore_colours": ["black"]}}}, "ignore_colours[0]: found 'black'"),
        ({"data": {"label": {"nonzero": True, "values": {0: 1}}}}, "found values and nonzero; expected one of them"),
        ({"data": {"label": {"attribute": "kind"}}}, "attribute: found with kind index; expected kind vector"),
        ({"data": {"label": {"ignore": [0.5]}}}, "found 0.5 with kind index; expected whole numbers"),
        ({"resources": {"storage": "s3://b/runs"}}, "resources.storage: found 's3://b/runs'; expected a folder"),
    ],
)
def test_complaints_name_file_key_found_and_expected(tmp_path: Path, sections: dict, said: str) -> None:
    path = write(tmp_path / "bad.yaml", **sections)
    with pytest.raises(UserError) as caught:
        load_experiment(path)
    assert said in str(caught.value)
    assert "bad.yaml" in str(caught.value)


def test_every_fault_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.yaml", traning={}, sampler={"steps": "x"})
    with pytest.raises(UserError) as caught:
        load_experiment(path)
    assert "traning" in str(caught.value)
    assert "sampler.steps" in str(caught.value)


def test_a_fault_of_an_override_names_the_flag(toy: Path) -> None:
    with pytest.raises(UserError, match=r"^--training\.refiner\.steps: found 'x'; expected a whole number$"):
        load_experiment(toy, {"training.refiner.steps": "x"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: [1, 2", "line"),
        ("data: {}\ndata: {}\n", "key 'data' appears twice"),
        ("just words", "expected sections"),
        ("", "found nothing"),
    ],
)
def test_files_that_are_no_experiment(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_yaml(path)


@pytest.mark.parametrize(
    ("refiner", "said"),
    [
        ({"coarse_odds": [0.2]}, "found 1 values; expected one for each class: ground, roof"),
        ({"coarse_odds": [1.0, 0.0]}, "refiner.coarse_odds"),
        ({"coarse_odds": [1.0, 0.2], "coarse_input": "ids"}, "coarse_odds needs coarse_input probabilities"),
    ],
)
def test_odds_that_fit_no_class(tmp_path: Path, refiner: dict[str, object], said: str) -> None:
    path = write(tmp_path / "a.yaml", refiner={"coarse_input": "probabilities"} | refiner)
    with pytest.raises(UserError, match=said):
        load_experiment(path)


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_experiment(tmp_path / "absent.yaml")
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="cannot be read as text"):
        load_experiment(tmp_path / "picture.yaml")
    with pytest.raises(UserError, match="cannot be read as text"):
        load_experiment(tmp_path)


def test_nearest_prefers_the_section_then_the_name() -> None:
    known = [key for key, _ in walk(Experiment)]
    assert nearest("training.refiner.step", known) == "training.refiner.steps"
    assert nearest("gsd_mismatch", known) == "data.gsd_mismatch"
    assert nearest("qqqqqqqqqq", known) is None


@pytest.mark.parametrize("line", ["images: [*.tif]", "images: [tile_[0-9]*.tif]", "images: *_image.tif"])
def test_a_pattern_without_quotes_is_called_by_its_name(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"data:\n  source:\n    {line}\n")
    with pytest.raises(UserError, match=r"a\.yaml line 3.*pattern of file names has to be quoted"):
        load_experiment(path)
