"""Options that the PyTorch module lacks are refused, whether they have parameters or not."""

import numpy as np
import pytest

from configs.pretrain import get_config
from semmim_jax.conversion.albef import albef_table
from semmim_jax.conversion.files import check_exportable
from semmim_jax.conversion.table import ConversionError, to_theirs
from semmim_jax.conversion.to_torch import MODULES, torch_config
from semmim_jax.tasks.registry import TASKS
from tests.tasks.warm_state import override


@pytest.mark.parametrize(
    ('field', 'value'), [('task.global_features', 'stable'), ('task.mim.centre_injection', True)]
)
def test_an_option_without_parameters_is_named(field, value):
    config = override(get_config('tiny'), {field: value}).to_dict()
    with pytest.raises(ConversionError, match=f'no {field}={value!r}'):
        torch_config(config, {}, tokens={}, labels=())


@pytest.mark.parametrize(
    'name',
    ['prototypes/kernel', 'dvae_head/kernel', 'image/registers', 'grounding/null_word/direction'],
)
def test_parameters_of_an_option_are_named(name):
    ours = {name: np.zeros((2, 3), np.float32)}
    with pytest.raises(ConversionError, match=name):
        to_theirs(albef_table(ours, text_depth=1), ours=ours, origin='run')


def test_a_task_states_whose_names_its_parameters_have_and_one_without_is_refused():
    for name in 'pretrain', 'self_critical', 'classify':
        assert TASKS[name].family == 'semmim'
    assert TASKS['completion'].family == 'scl'
    check_exportable(TASKS['completion'], name='completion', families=MODULES, to='PyTorch')
    with pytest.raises(ConversionError, match=r'dvae .* has no form for PyTorch yet'):
        check_exportable(TASKS['dvae'], name='dvae', families=MODULES, to='PyTorch')
    with pytest.raises(ConversionError, match=r'completion .* no form for Hugging Face yet'):
        check_exportable(
            TASKS['completion'], name='completion', families=['semmim'], to='Hugging Face'
        )
