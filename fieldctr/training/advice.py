"""What a finished fit should make its reader doubt, each with the cure."""

from collections.abc import Iterator

from fieldctr.config import TrainerConfig
from fieldctr.training.trainer import Fit


def advice(fit: Fit, settings: TrainerConfig) -> Iterator[str]:
    """Sentences on a fit, as far as it alone tells them."""
    last, best = fit.history[-1], fit.best
    if best is last:
        yield f"the best step was the last one, {fit.best_step:,}: {_more(settings)}"
    elif fit.cut and last["valid/logloss"] == min(record["valid/logloss"] for record in fit.history):
        yield f"valid LogLoss was still falling at the end, step {int(last['step']):,}: {_more(settings)}"
    if best["valid/ne"] > 1:
        yield (
            f"valid NE is {best['valid/ne']:.3f}: always predicting the click rate has a lower LogLoss. Try a lower "
            "optimizer.lr, a larger optimizer.embedding_l2 or trainer.monitor=logloss"
        )
    span = round(1 / (1 - settings.ema_decay)) if settings.ema_decay and settings.ema_decay < 1 else 0
    if fit.best_step < span:
        yield (
            f"the best weights are an average of {fit.best_step} steps, fewer than the {span} that "
            f"trainer.ema_decay={settings.ema_decay:g} spans. Try a smaller trainer.batch_size or optimizer.lr"
        )


def _more(settings: TrainerConfig) -> str:
    return f"it may not be trained. Try trainer.max_epochs={4 * settings.max_epochs}, or a larger optimizer.lr"
