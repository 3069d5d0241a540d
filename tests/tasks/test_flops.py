"""The count of matrix products against closed forms and against XLA's own count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from semmim_jax.training.flops import matmul_flops


def count(f, *shapes: tuple[int, ...]) -> float:
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return matmul_flops(jax.jit(f).lower(*inputs)).total()


@pytest.mark.parametrize(
    ('letters', 'a', 'b', 'multiply_adds'),
    [
        ('ij,jk->ik', (3, 5), (5, 7), 3 * 5 * 7),
        ('bij,bjk->bik', (2, 3, 5), (2, 5, 7), 2 * 3 * 5 * 7),
        ('bthd,bshd->bhts', (2, 3, 4, 5), (2, 7, 4, 5), 2 * 4 * 3 * 7 * 5),
        ('ijk,jkl->il', (3, 5, 7), (5, 7, 2), 3 * 5 * 7 * 2),
        ('i,j->ij', (3,), (5,), 3 * 5),
    ],
)
def test_a_product_costs_two_for_each_multiply_add(letters, a, b, multiply_adds):
    assert count(lambda x, y: jnp.einsum(letters, x, y), a, b) == 2 * multiply_adds


def test_element_wise_work_and_loops_without_products_cost_nothing():
    assert count(lambda x: jnp.tanh(x).sum() + jax.random.normal(jax.random.key(0), ()), (5,)) == 0


@pytest.mark.parametrize('unroll', [1, 2, True])
def test_the_body_of_a_scan_counts_for_every_layer(unroll):
    def f(x, kernels):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, kernels, unroll=unroll)[0].sum()

    product = 2 * 3 * 5 * 5
    assert count(f, (3, 5), (6, 5, 5)) == 6 * product
    # Backward: the gradients of x and of w. Those of the input are not asked for, but a scan's body
    # is the same for all layers.
    assert count(jax.grad(f, argnums=1), (3, 5), (6, 5, 5)) == 3 * 6 * product


def test_loops_in_loops_multiply_and_functions_count_at_every_call():
    product = jax.jit(lambda x, w: x @ w)

    def inner(x, w):
        return jax.lax.fori_loop(2, 6, lambda _, x: product(x, w), x)

    def f(x, w):
        x, _ = jax.lax.scan(lambda x, _: (inner(x, w), None), x, length=3)
        return product(product(x, w), w)

    assert count(f, (2, 5), (5, 5)) == (3 * 4 + 2) * 2 * 2 * 5 * 5


def test_recomputing_in_the_backward_pass_counts_again():
    f = lambda x, w: jnp.sin(jnp.sin(x @ w) @ w).sum()
    kept = count(jax.value_and_grad(f), (3, 5), (5, 5))
    policy = jax.checkpoint_policies.nothing_saveable
    again = count(jax.value_and_grad(jax.checkpoint(f, policy=policy)), (3, 5), (5, 5))
    assert again == kept + 2 * 2 * 3 * 5 * 5


def test_a_convolution_counts_its_kernel_at_every_output():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (4, 4), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )

    assert count(convolve, (2, 8, 8, 3), (4, 4, 3, 7)) == 2 * (2 * 2 * 2 * 7) * (4 * 4 * 3)


def test_a_transposed_convolution_counts_its_kernel_at_every_input():
    def convolve(x, kernel):
        return jax.lax.conv_transpose(x, kernel, (2, 2), 'SAME')

    assert count(convolve, (2, 8, 8, 3), (4, 4, 3, 7)) == 2 * (2 * 8 * 8 * 3) * (4 * 4 * 7)


def test_a_loop_of_unknown_length_is_refused():
    def f(x, w):
        return jax.lax.while_loop(lambda x: x.sum() < 1, lambda x: x @ w, x)

    with pytest.raises(ValueError, match='loop of unknown length'):
        count(f, (5, 5), (5, 5))


def test_a_branch_is_refused():
    with pytest.raises(ValueError, match='branch'):
        count(lambda x: jax.lax.cond(x.sum() > 0, lambda: x @ x, lambda: x), (5, 5))


def test_names_are_the_scopes():
    def f(x):
        with jax.named_scope('first'):
            y = x @ x
        with jax.named_scope('second'):
            return jax.lax.scan(lambda y, _: (y @ x, None), y, length=4)[0]

    flops = matmul_flops(jax.jit(f).lower(np.ones((5, 5), np.float32)))
    share = lambda scope: sum(cost for name, cost in flops.items() if scope in name)
    assert (share('first'), share('second')) == (250, 1000)


def test_xlas_count_of_unrolled_products_is_the_same():
    def f(x, kernels):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, kernels, unroll=True)[0]

    lowered = jax.jit(f).lower(np.ones((64, 128), np.float32), np.ones((3, 128, 128), np.float32))
    assert matmul_flops(lowered).total() == pytest.approx(
        lowered.cost_analysis()['flops'], rel=0.01
    )
