"""The curves of a run as a picture."""

from pathlib import Path

from speechbrain_slm.utils.atomic import atomic_path


def draw_curves(entries: list[dict], path: str | Path) -> None:
    """Draw losses, learning rate and gradient norm over the steps.

    Arguments
    ---------
    entries : Of a :class:`speechbrain_slm.brains.progress.TrainLog`.

    Example
    -------
    >>> path = getfixture("tmp_path") / "curves.png"
    >>> entry = {"step": 5, "loss": 2.0, "grad_norm": 1.0, "lr": 0.1}
    >>> draw_curves([entry, {"step": 5, "valid": {"en": 2.1}}], path)
    >>> path.read_bytes()[1:4]
    b'PNG'
    """
    # Not pyplot, which keeps figures and asks for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    train = [entry for entry in entries if "loss" in entry]
    valid = [entry for entry in entries if "valid" in entry]
    figure = Figure(figsize=(10, 7), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, sharex=True)
    for axis, (name, label) in zip(
        axes.flat,
        (
            ("loss", "training loss (nats a token)"),
            ("valid", "validation loss (nats a token)"),
            ("lr", "learning rate"),
            ("grad_norm", "gradient norm before clipping"),
        ),
        strict=True,
    ):
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        if name == "valid":
            sources = sorted({key for entry in valid for key in entry["valid"]})
            for source in sources:
                points = [e for e in valid if source in e["valid"]]
                axis.plot(
                    [entry["step"] for entry in points],
                    [entry["valid"][source] for entry in points],
                    marker=".",
                    label=source,
                )
            if sources:
                axis.legend()
        else:
            axis.plot(
                [entry["step"] for entry in train],
                [entry[name] for entry in train],
            )
    for axis in axes[1]:
        axis.set_xlabel("optimizer step")
    with atomic_path(path) as temporary:
        canvas.print_png(temporary)
