"""Operations as pure pairs: `noun_forward(...) -> (y, saved)` and `noun_backward(dy, saved)` -> gradients."""

from .activations import (
    gelu_backward,
    gelu_forward,
    leaky_relu_backward,
    leaky_relu_forward,
    log_softmax_backward,
    log_softmax_forward,
    relu_backward,
    relu_forward,
    sigmoid,
    sigmoid_backward,
    sigmoid_forward,
    softmax_backward,
    softmax_forward,
    tanh_backward,
    tanh_forward,
)
from .conv import conv_backward, conv_forward
from .conv_transpose import conv_transpose_backward, conv_transpose_forward
from .cross_entropy import cross_entropy_backward, cross_entropy_forward
from .dropout import dropout_backward, dropout_forward, dropout_mask
from .embedding import embedding_backward, embedding_forward
from .erf import erf
from .linear import linear_backward, linear_forward
from .losses import (
    binary_cross_entropy_backward,
    binary_cross_entropy_forward,
    huber_backward,
    huber_forward,
    mae_backward,
    mae_forward,
    mse_backward,
    mse_forward,
)
from .norm import (
    batch_norm_backward,
    batch_norm_forward,
    batch_norm_inference_backward,
    batch_norm_inference_forward,
    group_norm_backward,
    group_norm_forward,
    layer_norm_backward,
    layer_norm_forward,
)
from .patches import (
    depth_to_space_backward,
    depth_to_space_forward,
    space_to_depth_backward,
    space_to_depth_forward,
)
from .pooling import (
    avg_pool_backward,
    avg_pool_forward,
    global_avg_pool_backward,
    global_avg_pool_forward,
    global_max_pool_backward,
    global_max_pool_forward,
    max_pool_backward,
    max_pool_forward,
)
from .windows import Geometry, Window, col2im, im2col
