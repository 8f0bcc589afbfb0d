"""What each step of the command line does: reads options, calls the modules, says what came out."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from audiosearch.classifier.clip_scorer import ClipScorer, load_clip_scorer
from audiosearch.classifier.rescoring import Rescorer
from audiosearch.classifier.scorer import load_scorer
from audiosearch.errors import DataError, InvalidArgumentError
from audiosearch.models import bundled_model, read_model
from audiosearch.storage import read_json, sha256_file, write_json
from tools.lite.catalogue import Sound, read_packages, read_sounds, write_rows
from tools.lite.collection import SoundStore, collect
from tools.lite.network import StudentConfig, config_from_dict
from tools.lite.released import AudioSetClips, Pairs, Released
from tools.lite.run import student_of
from tools.lite.shards import Sources, build_shards, gather_targets, score_windows, shard_folders
from tools.lite.targets import read_corpus_targets, read_targets, write_targets
from tools.lite.teacher import Teacher, convert_teacher, last_layer, scores_of
from tools.lite.windows import Windows, cut_windows

__all__ = [
    "adapt_student",
    "audit",
    "collect_sounds",
    "cross_validate",
    "distil_trunk",
    "export_run",
    "fit_rescorer",
    "guide_student",
    "make_shards",
    "measure_embedder",
    "prepare",
    "restore_embedder",
    "tune_student",
]

FOLDS = 5
GUIDE_RATE = 1e-3


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def collect_sounds(options: Namespace) -> None:
    """Download the sounds of the committed lists."""
    store = _store(options.work)
    store.folder.mkdir(parents=True, exist_ok=True)
    missing = collect(
        read_packages(),
        read_sounds(),
        store,
        mirror=options.mirror,
        clones=options.clones,
        say=say,
    )
    say(f"{missing} sounds are missing")


def prepare(options: Namespace) -> None:
    """Cut windows, score them, and write the clean shards."""
    work: Path = options.work
    if not (work / "windows" / "windows.csv").exists():
        tests = {package.package for package in read_packages() if package.role == "test"}
        sounds = [sound for sound in read_sounds() if sound.package not in tests]
        cut_windows(sounds, _store(work), work / "windows", say=say)
    windows = Windows(work / "windows")
    teacher = _teacher(work, options.yamnet, options.threads)
    targets = work / "targets.npz"
    if not targets.exists():
        known = read_corpus_targets(*options.targets) if options.targets else {}
        write_targets(targets, score_windows(windows, teacher, known, say=say))
    sources = _sources(options)
    build_shards(sources, teacher, work / "shards", mixed=0, say=say)
    counts = np.bincount(sources.targets.argmax(axis=1), minlength=sources.targets.shape[1])
    say(f"{len(sources):,} sources; top classes: {int((counts > 0).sum())}")


def audit(options: Namespace) -> None:
    """Name the windows that are copies of test recordings."""
    from audiosearch.audio import find_audio
    from tools.lite.audit import find_copies

    sources = _sources(options)
    tests = [path for folder in options.tests for path in find_audio(folder)]
    teacher = _teacher(options.work, options.yamnet, 2)
    clean = shard_folders(options.work / "shards", "clean")
    copies = find_copies(tests, sources, clean, teacher, say=say)
    guilty = {sources.windows.rows[copy.source].sha1 for copy in copies}
    say(f"{len(tests):,} test recordings; copies in {len(guilty)} sounds")
    if options.out:
        listed = {sound.sha1: sound for sound in read_sounds()}
        write_rows(options.out, [listed[sha1] for sha1 in sorted(guilty)], Sound)


def make_shards(options: Namespace) -> None:
    """Write mixed shards."""
    teacher = _teacher(options.work, options.yamnet, options.threads)
    build_shards(
        replace(_sources(options), rarity=options.rarity),
        teacher,
        options.work / "shards",
        mixed=options.mixed,
        clips=options.clips,
        seed=options.seed,
        say=say,
    )


def distil_trunk(options: Namespace) -> None:
    """Stage 1: the trunk learns YAMNet's answers, patch by patch."""
    from tools.lite.distillation import DistillationConfig, distil

    config = DistillationConfig(
        student=_student(options),
        epochs=options.epochs,
        apart=options.apart,
        batch=options.batch,
        optimizer=options.optimizer,
        learning_rate=options.learning_rate,
        last_rate=options.last_rate,
        map_weight=options.map_weight,
        score_weight=options.score_weight,
        clean=options.clean,
        first=options.first,
        precision=options.precision,
        seed=options.seed,
    )
    teacher = _teacher(options.work, options.yamnet, options.threads)
    layer = last_layer(options.work / "yamnet.onnx")
    shards: Path = options.work / "shards"
    distil(shards, teacher, layer, options.run_folder, config, start=options.start, say=say)


def restore_embedder(options: Namespace) -> None:
    """Make a stage's folder of an exported embedder, to go on from its weights."""
    from tools.lite.distillation import mixed_shards
    from tools.lite.restoring import restore
    from tools.lite.shards import Shard

    path: Path = options.embedder or bundled_model("lite").path
    try:
        config = config_from_dict(read_json(path.with_suffix(".json"))["training"]["student"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"The manifest beside {path} does not say its shape: {error}.") from error
    mixed = Shard(mixed_shards(options.work / "shards", 0)[0])
    restore(path, config, mixed, Released(options.released), options.run_folder)


def guide_student(options: Namespace) -> None:
    """The guide: from YAMNet's embedding into VGGish's space."""
    from tools.lite.guiding import train_guide

    student = StudentConfig(hidden=_numbers(options.hidden))
    config = _adaptation(options, student, options.epochs, options.learning_rate, options.held_out)
    teacher = _teacher(options.work, options.yamnet, 2)
    train_guide(_material(options), teacher, options.run_folder, config, say=say)


def adapt_student(options: Namespace) -> None:
    """Stage 2: an adaptor into VGGish's space behind the trunk, which stays as it is."""
    from tools.lite.adaptation import adapt

    student = student_of(options.start)
    config = _adaptation(options, student, options.epochs, options.learning_rate, options.held_out)
    adapt(_material(options), options.start, options.run_folder, config, say=say)


def tune_student(options: Namespace) -> None:
    """Stage 3: trunk and adaptor are tuned together."""
    from tools.lite.adaptation import tune

    student = student_of(options.start)
    config = _adaptation(options, student, options.epochs, options.learning_rate, options.held_out)
    tune(_material(options), options.start, options.run_folder, config, say=say)


def cross_validate(options: Namespace) -> None:
    """Stages 2 and 3 five times, each without a fold of the pairs, and their embedders."""
    from tools.lite.adaptation import adapt, tune
    from tools.lite.export import export_stage
    from tools.lite.guide import Guide
    from tools.lite.guiding import train_guide

    material = _material(options)
    student = student_of(options.start)
    for fold in range(FOLDS):
        say(f"fold {fold}")
        folder = options.run_folder / f"fold-{fold}"
        if options.guide_epochs:
            config = _adaptation(options, student, options.guide_epochs, GUIDE_RATE, fold)
            teacher = _teacher(options.work, options.yamnet, 2)
            # Nothing leads the guide itself, least of all that of another fold; its rate is Adam's.
            alone = replace(material, guide=None)
            weight = config.pairs if options.guide_pairs is None else options.guide_pairs
            config = replace(config, optimizer="adam", pairs=weight)
            train_guide(alone, teacher, folder / "guide", config, say=say)
            material = replace(material, guide=Guide(folder / "guide"))
        config = _adaptation(options, student, options.epochs, options.learning_rate, fold)
        adapt(material, options.start, folder / "adapt", config, say=say)
        last = folder / "adapt"
        if options.tune_epochs:
            config = _adaptation(options, student, options.tune_epochs, options.tune_rate, fold)
            config = replace(config, optimizer=options.tune_optimizer)
            tune(material, last, folder / "tune", config, say=say)
            last = folder / "tune"
        export_stage(last, options.run_folder / f"fold-{fold}.onnx")


def export_run(options: Namespace) -> None:
    """Write a finished stage's student as ONNX, with its manifest."""
    from tools.lite.export import export_stage

    path = export_stage(options.run_folder, options.target)
    say(f"{path}: {path.stat().st_size:,} bytes")


def measure_embedder(options: Namespace) -> None:
    """Print the table of bars for an embedder."""
    from tools.lite.report import Tests, measure, read_held_out

    data: Path = options.data_dir
    work: Path = options.work or Path()
    released = Released(data / "audioset" / "bal_train.h5")
    clips = AudioSetClips(data / "lite" / "audioset_clips.npz")
    tests = Tests(
        held_out=read_held_out(_store(work)) if options.work else [],
        esc10=data / "esc10",
        samples=data / "samples",
        pairs=Pairs(clips, released),
        released=released,
    )
    folds = [options.folds / f"fold-{fold}.onnx" for fold in range(FOLDS)] if options.folds else []
    embedder: Path = options.embedder or bundled_model("lite").path
    result = measure(
        embedder,
        tests,
        _clip_scorer(options, sha256_file(embedder)),
        _teacher(work, options.yamnet, 2),
        folds=folds,
        say=say,
    )
    if options.json:
        write_json(options.json, result)


def fit_rescorer(options: Namespace) -> None:
    """Fit the rescorer of the embedder's clips, from the shards."""
    from tools.lite.embedded_clips import embed_shards
    from tools.lite.measures import OnnxEmbedder
    from tools.lite.rescoring import RescoringConfig, fit_lite

    usual = RescoringConfig()
    config = replace(
        usual,
        clips=replace(
            usual.clips, hidden=options.hidden, epochs=options.epochs, noise=options.noise
        ),
        frames=replace(
            usual.frames,
            hidden=options.frame_hidden,
            epochs=options.frame_epochs,
            noise=options.frame_noise,
        ),
        mixed=options.mixed,
        share=options.share,
        prior=options.prior,
        validation=options.validation,
        seed=options.seed,
    )
    embedder: Path = options.embedder or bundled_model("lite").path
    digest = sha256_file(embedder)
    teacher = _teacher(options.work, options.yamnet, options.threads)
    layer = last_layer(options.work / "yamnet.onnx")
    clips = embed_shards(
        options.work,
        OnnxEmbedder(embedder, threads=options.threads),
        digest,
        lambda embedding: scores_of(embedding, layer, teacher.columns),
        say=say,
    )
    scorer = load_scorer(threads=options.threads)
    path = fit_lite(clips, scorer, digest, options.target, config, say=say)
    say(f"{path}: {path.stat().st_size:,} bytes")


def _clip_scorer(options: Namespace, digest: str) -> ClipScorer:
    """Return what scores the embedder's clips: with the rescorer named, or what is installed."""
    if options.rescorer is None:
        return load_clip_scorer("lite", digest, classifier=options.classifier)
    path: Path = options.rescorer
    model = read_model(path.parent, path.stem, remedy="Fit it again with the step rescore.")
    return ClipScorer(load_scorer(options.classifier), Rescorer(model))


def _store(work: Path) -> SoundStore:
    return SoundStore(work / "store")


def _teacher(work: Path, yamnet: Path, threads: int) -> Teacher:
    """Return YAMNet, converted where that was not done before."""
    path = work / "yamnet.onnx"
    if not path.exists():
        convert_teacher(yamnet / "yamnet_spectra_in.tflite", path)
    return Teacher(path, yamnet / "yamnet_class_map.csv", threads=threads)


def _sources(options: Namespace) -> Sources:
    windows = Windows(options.work / "windows")
    clips = AudioSetClips(options.audioset_clips) if options.audioset_clips else None
    known = read_targets(options.work / "targets.npz")
    return Sources(windows, clips, gather_targets(windows, clips, known))


def _student(options: Namespace) -> StudentConfig:
    return StudentConfig(
        channels=_numbers(options.channels),
        depths=_numbers(options.depths),
        inner=_numbers(options.inner),
        hidden=_numbers(options.hidden),
    )


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError:
        raise InvalidArgumentError(f"'{text}' is not a list of whole numbers.") from None


def _material(options: Namespace) -> Any:
    from tools.lite.adaptation import Material
    from tools.lite.guide import Guide
    from tools.lite.judging import Judge

    released = Released(options.released)
    clips = AudioSetClips(options.audioset_clips)
    folders = options.classifier or [None]
    judges = [Judge(folder, calibrated=not options.raw) for folder in folders]
    guide = getattr(options, "guide", None)
    return Material(
        shards=options.work / "shards",
        pairs=Pairs(clips, released),
        released=released,
        judges=judges,
        last_layer=last_layer(options.work / "yamnet.onnx"),
        guide=Guide(guide) if guide else None,
    )


def _adaptation(
    options: Namespace,
    student: StudentConfig,
    epochs: int,
    rate: float,
    held_out: int | None,
) -> Any:
    from tools.lite.adaptation import AdaptationConfig
    from tools.lite.batching import BatchShape

    return AdaptationConfig(
        student=student,
        epochs=epochs,
        batch=BatchShape(options.patches, max(8, options.patches * 3 // 8), options.pairs_a_step),
        optimizer=options.optimizer,
        learning_rate=rate,
        pairs=options.pairs,
        agreement=options.agreement,
        moments=options.moments,
        distillation=options.distillation,
        guidance=getattr(options, "guidance", 0.0),
        balance=options.balance,
        clean=options.clean,
        first=options.first,
        held_out=held_out,
        precision=options.precision,
        seed=options.seed,
    )
