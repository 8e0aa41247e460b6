"""Shape annotations: `Float[Tensor, "batch d_in"]`.

The test run checks them (jaxtyping and beartype); a bare GPU machine without jaxtyping reads them as documentation.
"""

from torch import Tensor

try:
    from jaxtyping import Bool, Float, Int
except ImportError:

    class Float:
        """Stands in for jaxtyping's class of the same name: subscripting gives a plain tensor annotation."""

        def __class_getitem__(cls, _):
            return Tensor

    Bool = Int = Float

__all__ = ["Bool", "Float", "Int", "Tensor"]
