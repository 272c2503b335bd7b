"""What follows a run while it is carried out: a sweep, whose search may stop the run early."""

from collections.abc import Mapping


class Listener:
    """Hears how a run goes. This one does nothing."""

    def epoch(self, number: int, of: int, metrics: Mapping[str, float]) -> bool:
        """Hear of a finished epoch; return whether training is to stop.

        Args:
            number: Of the epoch, from 1. A run that goes on from a checkpoint repeats the epochs before.
            of: Number of epochs that the config asks for.
            metrics: Of the epoch.
        """
        return False

    def measured(self, measures: Mapping[str, float], pruned: int) -> None:
        """Hear the measures of the finished model.

        Args:
            measures: By name.
            pruned: The epoch after which `epoch` stopped training; 0: it did not.
        """


current = Listener()  # of the run in this process; a sweep's worker sets its own
