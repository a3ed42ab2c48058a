"""Pictures of tickets, and the exact tables behind them."""

from keras_lottery.tickets.pictures.plotting import plot
from keras_lottery.tickets.pictures.tables import dead_units
from keras_lottery.tickets.pictures.tables import fate

__all__ = ["dead_units", "fate", "plot"]
