"""The operators a bundle may hold: standard ONNX, free of side effects, chance, loops, text and custom code."""

_OPERATORS = """
    Abs Acos Acosh Add Asin Asinh Atan Atanh BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike
    Ceil Celu Clip Cos Cosh Div Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Max
    Mean Min Mish Mod Mul Neg PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt
    Sub Sum Swish Tan Tanh ThresholdedRelu

    And Equal Greater GreaterOrEqual Less LessOrEqual Not Or Where Xor

    Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten Gather GatherElements GatherND OneHot Pad Range
    Reshape ReverseSequence ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze Tile Transpose Trilu
    Unsqueeze

    ArgMax ArgMin CumSum Einsum Gemm Hardmax LogSoftmax MatMul ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Softmax TopK

    Attention AveragePool BatchNormalization Conv ConvTranspose Dropout GRU GlobalAveragePool GlobalMaxPool GridSample
    GroupNormalization InstanceNormalization LRN LSTM LayerNormalization LpNormalization MaxPool
    MeanVarianceNormalization RMSNormalization RNN Resize RotaryEmbedding

    ConvInteger DequantizeLinear DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul QuantizeLinear
"""
_AMPLIFIERS = """
    Attention AveragePool ConstantOfShape Conv ConvTranspose ConvInteger Expand EyeLike GRU GridSample LSTM MaxPool
    OneHot Pad QLinearConv RNN Range Resize Tile TopK
"""

#: What a bundle may hold: arithmetic, logic, shape and place, sums and orders, layers, eight-bit arithmetic.
OPERATORS: frozenset[str] = frozenset(_OPERATORS.split())

#: Operators whose result can be far larger than all they read: their size must be known before they may run.
AMPLIFIERS: frozenset[str] = frozenset(_AMPLIFIERS.split())
