"""Pictures of a text that is being written, step by step, which notebook 01 and the project's site show."""

from sinkprune.figures.trajectories import positions_table
from sinkprune_companion.experiments.sink_records import Measured
from sinkprune_companion.figures import step_views, writing
from sinkprune_companion.figures.figures import save_figure
from sinkprune_companion.run.records import Run

FRAMES = 24  # of an animation, and its last step


def step_pictures(run: Run, found: Measured, pair: list[dict], steps: int, sink_std: float) -> list:
    """Save the slider of a text and its sinks, its last step as a picture, the animation of all steps, and
    the data of the explorer of the project's site; return the first two for a notebook to show.
    """
    says = "The text and its sinks, step by step"
    positions = positions_table(pair)
    last = positions[positions.step == steps - 1]
    drawn = writing.plot_writing(pair, steps - 1)
    shown = [save_figure(run, drawn, "writing", last, f"{says}: the last step, one prompt")]

    traced = [(found.models[kind], one) for kind, one in found.traces.items()]
    views = step_views.views(traced[:2], prompts=1, sink_std=sink_std)
    shown.append(step_views.save_slider(run, "writing", says, step_views.data(views, steps)))

    views = step_views.views(traced, prompts=4, sink_std=sink_std, layers=True)
    caption = "attention mass per token, step and layer, of the first prompts and all models, quantised"
    step_views.save_explorer(run, "explorer", caption, step_views.data(views, steps, pick=True))

    moments = sorted({*range(0, steps, -(-steps // FRAMES)), steps - 1})
    frames = (writing.plot_writing(pair, step) for step in moments)
    writing.save_animation(run, frames, "sink_positions")
    return shown
