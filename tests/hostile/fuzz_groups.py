"""The groups of bad inputs, by the name that the table has."""

from hostile.fuzz_archives import archives
from hostile.fuzz_models import (
    adapters,
    cards,
    configurations,
    hub_caches,
    indices,
    ropes,
    tokenizers,
    weights,
)
from hostile.fuzz_publishing import runs
from hostile.fuzz_users import local_data, overflowing
from hostile.fuzz_values import findings, notebook_parameters, numbers, records

GROUPS = {  # the cases, and each so many-th of them that the short run takes
    "weights": (weights, 60),
    "cards of saved models": (cards, 6),
    "configurations": (configurations, 400),
    "rotary frequencies": (ropes, 12),
    "indices and shards": (indices, 30),
    "tokenizers": (tokenizers, 40),
    "the hub's cache": (hub_caches, 15),
    "adapters": (adapters, 60),
    "records": (records, 10),
    "findings": (findings, 1),
    "numbers of settings": (numbers, 1),
    "parameters of notebooks": (notebook_parameters, 1),
    "activations that overflow": (overflowing, 25),
    "local data": (local_data, 1),
    "archives of records": (archives, 6),
    "runs to publish": (runs, 4),
}
