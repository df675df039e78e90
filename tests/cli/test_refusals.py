"""What a command refuses: in one line, with exit code 2, and without writing anything."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from tests.cli.conftest import Run

CSV = (
    "strategy,method,gmacs,top1,model,data,images,alpha,P\n"
    "dense,dense,2,80,ViT,x,9,,\ngtp,gtp,1,79,ViT,x,9,0.1,3\ngtp,gtp,1,78,ViT,x,9,0.2,3\n"
)
REFUSED = [
    # ablate
    ("ablate -a alpha", "NAME=VALUE"),
    ("ablate -a alpha 0.1,0.2", "expected --axis NAME=VALUE,VALUE, got 'alpha'"),
    ("ablate -a alpha=[0.1", "KEY=VALUE"),
    ("ablate -a alfa=0.1", "Did you mean 'alpha'"),
    ("ablate -a model=digit", "Did you mean 'digits'?"),
    ("ablate -a model=digits,cifar10_vit", "expected --data"),
    ("ablate -a P=4 --device abacus --engine processes --dry-run", "a device of this machine"),
    ("agreement -o agree.png", "as a folder for agreement.csv and agreement.png, got the file"),
    ("compare -o table.CSV", "as a folder for comparison.csv and tradeoff.png"),
    ("ablate -a P=4 -a device=cpu,abacus", "a device of this machine, got 'abacus'"),
    (
        "ablate -a P=4 --class-map folders",
        "digits has classes of its own, got the class map 'folders'",
    ),
    ("compare --no-timing -s topk --class-map folders", "leave it out"),
    ("compare --class-map folder", "unknown class map 'folder'. Did you mean 'folders'?"),
    ("ablate --model vit_tiny_patch16_224 -a P=4", "--data"),
    ("ablate --engine rey -a P=4", "Did you mean 'ray'"),
    ("ablate --against all -a P=4", "unknown strategy 'all'"),
    ("ablate --against base -a base=tome,gtp", "compared with itself"),
    ("ablate --base topk -a base=tome,gtp", "use --against STRATEGY"),
    ("ablate --random-weights --metric accuracy -a P=4", "random weights"),
    ("ablate -a P=4 --data .", "expected --model for the data '.'"),
    ("ablate -a P=4 --limit 0", "--limit must be a whole number"),
    ("ablate --metric acuracy -a P=4", "metric"),
    ("ablate -s gtp -a P=4", "Unknown option: -s. Did you mean --base?"),
    ("ablate --strategy=gtp -a P=4", "Unknown option: --strategy=gtp. Did you mean --base?"),
    ("ablate none.toml", "cannot read none.toml: no such file"),
    ("ablate --store . -a P=4", "cannot open the store"),
    ("ablate -a P=4 -o old.csv", "--overwrite"),
    ("ablate -a P=4 -o rows.png", ".csv"),
    ("ablate -a P=4 --rows 0", "--rows must be a whole number of at least 1"),
    # agreement
    ("agreement -s gtp", "two strategies"),
    ("agreement --statistic all", "--statistic"),
    ("agreement --workers -1", "--workers must be a whole number"),
    # bench
    ("bench -s nothing", "unknown strategy 'nothing'"),
    ("bench --model vit_tinny_patch16_224", "Did you mean"),
    ("bench --image-size 0", "HEIGHTxWIDTH, got '0'"),
    ("bench --image-size 32,a", "HEIGHTxWIDTH, got 'a'"),
    ("bench -n 1,1.5", "expected a whole number, got 1.5"),
    ("bench --dtype int8", "float32"),
    ("bench --compile fast", "'max-autotune-no-cudagraphs', got 'fast'"),
    ("bench --resume --overwrite", "choose one"),
    ("bench --chart none.db", "cannot read none.db"),
    # compare
    ("compare --base gtp", "Unknown option: --base. Did you mean --strategy?"),
    ("compare -s nothing", "unknown strategy 'nothing'"),
    ("compare gtp tome@0.5", "needs its option: -s gtp -s tome@0.5."),
    ("export digits -o m.onnx", "needs its option: --model digits."),
    ("compare --budget 1.5", "--budget must"),
    ("compare -s none.toml@0.65", "cannot read none.toml: no such file"),
    ("compare mine.py", "needs its option: --import mine.py."),
    ("compare -s gtp:Q=3", "strategy 'gtp' has no argument 'Q'"),
    ("compare --data nowhere --model digits", "found nothing"),
    ("compare --model cifar10_vit", "--data: expected the location of CIFAR-10"),
    ("compare --data .", "expected --model for the data '.'"),
    ("compare --limit 1.5", "expected a whole number, got 1.5"),
    ("compare -s gtp,P=4", "expected a strategy, such as 'gtp', 'gtp:P=4"),
    ("compare -s gtp@0.65,tome@0.65", "Write several as a list, or repeat the option"),
    ("compare -s old.toml", "old.toml: strategy 'gtp' has no argument 'Q'"),
    ("compare --limit 0", "tokenred: --limit must be a whole number of at least 1"),
    ("compare --model deit_small_patch16_22 --data digits", "Did you mean"),
    ("compare --model vit_tiny_patch16_224", "--data"),
    ("compare --mean 0.5,a,b", "r,g,b"),
    ("compare --pairs 1", "pairs"),
    ("compare --device no-such", "device"),
    ("compare --demo -s gtp", "--demo"),
    ("compare --random-weights --data digits", "random weights"),
    ("compare --random-weights --no-timing", "nothing to measure"),
    ("compare --resume --overwrite", "choose one"),
    # export
    ("export -o m.bin", "expected --output to end in .onnx or .pt2, got 'm.bin'"),
    ("export -o m.onnx --format onx", "Did you mean 'onnx'?"),
    ("export -o m.pt2 --format onnx", "ends in .onnx, got 'm.pt2'"),
    ("export -o m.pt2 --batch-size 4", "unknown batch size '4'"),
    ("export -o m.pt2 --opset 20", "--opset is for ONNX"),
    ("export -o /proc/none/m.pt2", "choose another folder"),
    ("export -o m.pt2 --tolerance 0", "tolerance"),
    ("export -o m.pt2 --image-size 0x32", "expected --image-size as a side or HEIGHTxWIDTH"),
    ("export -o m.onnx --opset 3", "--opset must be a whole number of at least 18"),
    ("export -o old.pt2", "--overwrite"),
    # finetune
    ("finetune -o run -s gtp --set mixup", "--set KEY=VALUE"),
    ("finetune -o run -s gtp --set mixdown=1", "unknown setting 'mixdown'"),
    ("finetune -o run -s gtp --preset letters", "Choose from"),
    ("finetune -o run -s gtp --model deit_tiny_patch16_224", "--data"),
    ("finetune -o run -s gtp --threads 0", "--threads"),
    ("finetune -o run -s gtp --epochs 0", "epochs"),
    ("finetune -s gtp", "--output"),
    # graph
    ("graph", "or --demo"),
    ("graph torn.png --demo", "or --demo"),
    ("graph torn.png", "expected --model"),
    ("graph torn.png --model digits", "photograph at torn.png"),
    ("graph --demo -b mixd", "Did you mean 'mixed'"),
    ("graph --demo -b mixed:M=", "KEY=VALUE"),
    ("graph --demo -b mixed:K=3", "'K'"),
    ("graph --demo -b none", "that makes a graph"),
    ("graph --demo -p=-1", "--patch must be a whole number of at least 0"),
    ("graph --demo -o graph.txt", ".png"),
    ("graph --demo -o old.png", "--overwrite"),
    # oversmoothing
    ("oversmoothing -s gtp@0.5", "its own budget"),
    ("oversmoothing --share 75", "between 0 and 1"),
    # plot
    ("plot lines none.csv --x alpha", "cannot read none.csv"),
    ("plot lines old.csv --x M", "needs the column M"),
    ("plot heat-map old.csv --x alpha --y p", "Did you mean 'P'?"),
    ("plot lines old.csv --x alpha --fix P", "COLUMN=VALUE"),
    ("plot lines old.csv --x alpha -o a.gif", ".png, .pdf, .svg"),
    ("plot lines old.csv --x alpha -o old.png", "--overwrite"),
    ("plot tradeoff old.csv --x ms", "Choose from"),
    ("plot tradeoff old.csv --width 0", "width must be a finite number in (0, 100], got 0"),
    ("plot tradeoff old.csv --published none.csv", "cannot read none.csv"),
    ("plot graph-table old.csv --text html", "--text"),
    # report
    ("report none.db", "cannot read none.db"),
    ("report old.csv -o a.pdf", ".html"),
    ("report old.csv -o a.html --level 2", "level"),
    ("report old.csv -o old.html", "--overwrite"),
    # reproduce
    ("reproduce", "--imagenet"),
    ("reproduce --imagenet nowhere", "nowhere"),
    ("reproduce --demo -e table9", "unknown experiment 'table9'"),
    ("reproduce --costs --checkpoint DeiT-S", "NAME=FILE"),
    ("reproduce --costs --checkpoint DeiT-S=none.pth", "none.pth"),
    # show
    ("show", "expected a photograph"),
    ("show torn.png --data digits", "expected a photograph"),
    ("show --demo --data digits", "--demo"),
    ("show torn.png", "expected --model"),
    ("show none.png --model digits", "cannot read none.png: no such file"),
    ("show --demo -o a.jpg", ".png, .pdf, .svg"),
    ("show --demo -o old.png", "--overwrite"),
    ("show --demo --layers '1;2'", "--layers"),
    ("show --demo --classes none.txt", "cannot read none.txt: no such file"),
    ("finetune -o run -s gtp --lr -1", "--lr must be a finite number"),
    ("finetune -o run -s gtp --set mixup=many", "--set mixup must be a finite number"),
    ("finetune -o run -s gtp --validation none", "expected a dataset at none"),
    ("compare --device cdua", "Did you mean 'cuda'?"),
    ("compare --device cpu:9", "the CPU is one device"),
    ("compare --split nosuch", "digits has the splits test and train"),
    ("compare --smaller nosuch", "unknown model 'nosuch'"),
    ("compare --model torn.safetensors --data digits", "cannot read torn.safetensors"),
    ("compare --store old.csv", "cannot open the store old.csv"),
    ("compare -s gtp@0.65 --budget 0.5", "'gtp@0.65' has its own budget, got --budget as well"),
    ("compare -s gtp -s gtp", "expected each strategy once"),
    ("agreement -s gtp@0.65 -s tome", "here all remove the same counts"),
    ("agreement -s gtp -s tome -P=-1", "--removed must be a whole number"),
    ("ablate study.toml", "unknown table of the study file study.toml 'grid'"),
    ("ablate -a P=4 --dtype int8", "--dtype must be one of 'float32'"),
    ("ablate -a dtype=int8", "axis dtype must be one of 'float32'"),
    ("ablate -a threads=0", "axis threads must be a whole number"),
    ("ablate -a image_size=32x", "HEIGHTxWIDTH, got '32x'"),
    ("ablate -a P=4 --reference nosuch", "unknown model 'nosuch'"),
    ("ablate -a P=4 --split nosuch", "digits has the splits test and train"),
    ("ablate -a P=4 --model nosuch --random-weights", "unknown model 'nosuch'"),
    ("ablate -a P=4 --random-weights --data digits", "leave out --data or --random-weights"),
    ("bench --model digits,cifar10_vit", "unknown model 'digits,cifar10_vit'"),
    ("graph --demo -b mixed:M=0", "Mixed: M must be a whole number of at least 1"),
    ("show --demo --width 0", "--width must be a finite number"),
    ("show --demo --index=-1", "--index must be a whole number"),
    ("report torn.png -o a.html", "nothing to draw"),
    ("reproduce --demo -m DeiT-S", "leave out --model"),
    ("reproduce --costs -m nosuch", "unknown model 'nosuch'"),
    ("reproduce --demo --dtype int8", "--dtype"),
    ("reproduce --demo --checkpoint DeiT-S=old.csv", "leave out --model and --checkpoint"),
    ("reproduce --demo --split vall", "digits has the splits test and train"),
    ("reproduce --costs --limit 5", "leave out --limit, --quick and --speed"),
    ("reproduce --costs -o old.csv", "old.csv is a file"),
    ("reproduce --costs -o kept", "cannot open the store kept/results.db"),
    ("reproduce --imagenet digits --checkpoint DeiT-S=torn.safetensors", "as a safetensors file"),
    ("reproduce --costs -m DeiT-S --checkpoint DeiT-Q=old.csv", "Did you mean 'DeiT-S'?"),
    ("compare -s tome:P=4", "strategy 'tome' has no P; its number of tokens is r="),
    ("compare -s pitome:margin=x", "Did you mean 'margins'?"),
    ("compare -s gtp:scorr=DiagAttn", "Did you mean 'scorer'?"),
    ("compare --data cifar10:torn.zip", "expected a readable zip file at torn.zip"),
    ("ablate metric.toml", "metric 'speed' has no option 'pears'. Did you mean 'pairs'?"),
    ("plot table old.csv --rows alpha --columns alpha", "got alpha twice"),
    ("show --demo --width 1e9", "--width must be a finite number in (0, 100]"),
    ("compare -s tome:r=-1", "tome: r must be a whole number of at least 0"),
    ("compare -s pitome:margins=x", "pitome: margins must be"),
    ("compare -s wrong.toml", "wrong.toml: unknown key of a strategy file 'recipee'"),
    ("compare -s empty.toml", "a strategy file needs a [scorer] table"),
    ("compare --use-ema", "expected --checkpoint with --use-ema"),
    ("compare --std 0,0,0", "expected --std as three numbers r,g,b above 0"),
    ("compare --data torn.zip --model digits", "expected a readable zip file at torn.zip"),
    ("compare --data old.csv --model digits", "got the file old.csv"),
    ("export --random-weights --checkpoint old.csv -o x.onnx", "exclude each other"),
    ("bench -o kept --resume", "cannot open the store kept/results.db"),
    ("bench --chart old.csv -o new", "a break-even chart needs the column"),
    ("plot heat-map old.csv --x alpha --y alpha", "got alpha twice"),
    ("plot tradeoff old.csv --table 1", "expected --published CSV"),
    ("graph --demo -o old.csv/x.png", "old.csv is a file"),
    ("ablate --base tome -a r=-1", "axis r of tome must be"),
    ("ablate --base gtp@0.65 --budget 0.5 -a P=4", "got --budget as well"),
    ("ablate -a P=4 --data none --model digits", "expected a dataset at none"),
    ("ablate cells.toml", "unknown axis 'alhpa'"),
    ("ablate workers.toml", "workers must be a whole number of at least 1"),
    ("ablate device.toml", "Did you mean 'cuda'?"),
    ("ablate empty_axis.toml", "axis 'alpha': expected at least one value"),
]
ONLY_THE_MODEL_KNOWS = [
    ("ablate -a P=4,60", "cell 1, gtp:P=60"),
    ("agreement --layer 8", "--layer from 0 to 7"),
    ("agreement -P 9", "remove"),
    ("bench -s gtp:P=60", "no cell of the sweep can run"),
    ("compare -s gtp:P=60", "gtp:P=60: "),
    ("export -o m.pt2 -s gtp:P=60", "60 tokens"),
    ("export -o m.pt2 --image-size 33x32", "33x32"),
    ("export -o m.onnx --opset 99", "an opset of at most"),
    ("graph --demo -b mixed:M=64", "M must be below"),
    ("graph --demo -p 64", "between 0 and 63"),
    ("show --demo --layers 9", "blocks from 0 to 7"),
    ("show --data digits --index 360", "--index from 0 to 359"),
]


_ALL = REFUSED + ONLY_THE_MODEL_KNOWS


def _files() -> None:
    for name in ("old.png", "old.html", "old.pt2", "torn.png", "torn.safetensors", "torn.zip"):
        Path(name).write_text("mine")
    Path("old.csv").write_text(CSV)
    Path("old.toml").write_text("recipe = 'gtp'\nQ = 3\n")
    Path("study.toml").write_text("[grid]\n[axes]\nP = [4]\n")
    Path("cells.toml").write_text("[axes]\nP = [4]\n[[cells]]\nalhpa = 0.3\n")
    Path("workers.toml").write_text("[study]\nworkers = 0\n[axes]\nP = [4]\n")
    Path("device.toml").write_text("[axes]\nP = [4]\ndevice = ['cudda']\n")
    Path("empty_axis.toml").write_text("[axes]\nalpha = []\n")
    speed = "{name = 'speed', pears = 9}"
    Path("metric.toml").write_text(f"[study]\nmetrics = [{speed}]\n[axes]\nP = [4]\n")
    Path("wrong.toml").write_text("recipee = 'gtp'\n")
    Path("empty.toml").write_text("")
    Path("kept").mkdir()
    Path("kept", "results.db").write_text("mine")


@pytest.mark.parametrize(("line", "told"), _ALL, ids=[line for line, _ in _ALL])
def test_refused(run: Run, tmp_path: Path, line: str, told: str) -> None:
    _files()
    before = _content()
    assert told in run(*shlex.split(line)).refusal
    assert _content() == before


def _content() -> dict[Path, bytes | None]:
    """The files, and the folders."""
    return {p: p.read_bytes() if p.is_file() else None for p in Path().rglob("*")}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("compare --no-timing -s topk", "comparison.csv"),
        ("bench -s topk", "results.db"),
        ("oversmoothing", "oversmoothing.csv"),
        ("agreement", "agreement.png"),
    ],
)
def test_an_old_output_stays_unless_it_may_be_replaced(run: Run, command: str, name: str) -> None:
    Path("out").mkdir()
    Path("out", name).write_text("mine")
    # Not a model: nothing is loaded before the folder is looked at.
    save_file({}, "empty.safetensors")
    words = [*shlex.split(command), "--model", "empty.safetensors"]
    words += [] if command.startswith("bench") else ["--data", "digits"]
    words += ["--out", "out"]
    assert "--overwrite" in run(*words).refusal
    assert Path("out", name).read_text() == "mine"


_WITHOUT_PYTORCH = """
import contextlib, importlib.machinery, io, json, shlex, sys

class Needed(BaseException):
    pass

class Loader:
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        raise Needed

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "timm"):
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            spec.loader = Loader()
            return spec

sys.meta_path.insert(0, Finder())
from tokenred.cli.app import main

late = []
for line in json.load(sys.stdin):
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            main(shlex.split(line))
    except Needed:
        late.append(line)
    except SystemExit:
        pass
print(json.dumps(late))
"""


def test_what_needs_no_model_is_refused_without_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _files()
    lines = json.dumps([line for line, _ in REFUSED])
    ran = subprocess.run(
        [sys.executable, "-c", _WITHOUT_PYTORCH], input=lines, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert json.loads(ran.stdout.splitlines()[-1]) == []
