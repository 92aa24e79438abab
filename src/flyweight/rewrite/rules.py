"""All rewrite rules, in the order in which they are tried."""

from flyweight.rewrite import (
    attention,
    batched_products,
    cross_residual,
    distribute_cat,
    drop_identities,
    einsum_products,
    flat_layers,
    fold_codebooks,
    fold_norms,
    fuse_tables,
    gathered_dots,
    head_of_cross,
    join_spreads,
    late_expand,
    late_rounding,
    late_select,
    leaky_prelu,
    low_rank_products,
    merge_linears,
    neighbouring_rows,
    nested_cats,
    pairwise_dots,
    slice_of_cat,
    split_linear,
    stack_as_cat,
    sum_of_cat,
    sum_of_products,
    sum_of_sums,
    target_attention,
)
from flyweight.rewrite.rule import Rule

#: Bring what is left of the request out of layers that read both sides.
HOISTING: tuple[Rule, ...] = (
    late_expand.RULE,
    target_attention.RULE,  # before split linear, which would take k out and leave q-k and q*k behind
    low_rank_products.RULE,  # before the rules of cross layers, which would take the products apart
    cross_residual.RULE,
    head_of_cross.RULE,  # before split linear, which would cut the logit's layer
    stack_as_cat.RULE,
    slice_of_cat.RULE,
    join_spreads.RULE,
    gathered_dots.RULE,
    pairwise_dots.RULE,
    late_select.RULE,
    distribute_cat.RULE,
    nested_cats.RULE,
    late_rounding.RULE,
    sum_of_sums.RULE,
    sum_of_cat.RULE,
    split_linear.RULE,
    attention.RULE,
    batched_products.RULE,
    einsum_products.RULE,
    sum_of_products.RULE,
)
#: Make one operator of several, on either side.
FUSING: tuple[Rule, ...] = (
    drop_identities.RULE,
    fold_norms.RULE,
    leaky_prelu.RULE,
    flat_layers.RULE,
    merge_linears.RULE,
    fuse_tables.RULE,
    neighbouring_rows.RULE,
    fold_codebooks.RULE,
)
RULES: tuple[Rule, ...] = (*HOISTING, *FUSING)
