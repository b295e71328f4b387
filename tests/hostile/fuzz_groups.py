"""The groups of bad inputs, by the name that the table has."""

from hostile import smallest
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
from hostile.fuzz_users import ids_of_others, local_data, overflowing, users_functions
from hostile.fuzz_values import findings, ledgers, notebook_parameters, numbers, records

GROUPS = {
    "weights": weights,
    "cards of saved models": cards,
    "configurations": configurations,
    "rotary frequencies": ropes,
    "indices and shards": indices,
    "tokenizers": tokenizers,
    "the hub's cache": hub_caches,
    "adapters": adapters,
    "records": records,
    "findings": findings,
    "ledger of claims": ledgers,
    "numbers of settings": numbers,
    "parameters of notebooks": notebook_parameters,
    "functions of users": users_functions,
    "activations that overflow": overflowing,
    "ids of other models": ids_of_others,
    "local data": local_data,
    "archives of records": archives,
    "runs to publish": runs,
    "values below the smallest": smallest.below,
}
