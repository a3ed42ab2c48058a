"""The operations that an export may hold: they compute, and do nothing else.

A graph is a program. Files, networks, processes, Python, operations of plugins
and printing are absent from these lists, and whatever is absent is refused.
Looking parses the file; nothing in it has run.
"""

import collections

from keras_lottery.exporting.verifying import inspection

_STRUCTURE = """
    Const Placeholder PlaceholderWithDefault Identity IdentityN NoOp
    StopGradient PreventGradient EnsureShape Shape ShapeN Size Rank
"""
# Functions, branches and loops; those that they call are looked at too.
_CONTROL = """
    PartitionedCall StatefulPartitionedCall If StatelessIf While StatelessWhile
    Case StatelessCase Enter Exit NextIteration LoopCond Merge Switch
    TensorListConcatV2 TensorListElementShape TensorListFromTensor
    TensorListGather TensorListGetItem TensorListLength TensorListPopBack
    TensorListPushBack TensorListReserve TensorListResize TensorListSetItem
    TensorListSplit TensorListStack EmptyTensorList _Arg _Retval
"""
# Memory of the session. Tables are filled from constants: what fills them from
# files is InitializeTableFromTextFileV2.
_STATE = """
    VarHandleOp ReadVariableOp AssignVariableOp AssignAddVariableOp
    AssignSubVariableOp VarIsInitializedOp DestroyResourceOp DisableCopyOnRead
    VariableShape ResourceGather ResourceGatherNd VariableV2 Assign
    HashTableV2 InitializeTableV2 LookupTableFindV2 LookupTableImportV2
    LookupTableSizeV2
"""
# How weights come back: `compact.decode`.
_DECODING = """
    DecodeCompressed DecodeRaw Bitcast Cumsum ScatterNd TensorScatterUpdate
"""
_ELEMENTS = """
    Abs Acos Acosh Add AddN AddV2 Angle Asin Asinh Atan Atan2 Atanh BesselI0e
    BesselI1e BitwiseAnd BitwiseOr BitwiseXor Cast Ceil ClipByValue Complex
    ComplexAbs Conj Cos Cosh Digamma Div DivNoNan Equal Erf Erfc Erfinv Exp
    Expm1 Floor FloorDiv FloorMod Greater GreaterEqual Igamma Igammac Imag Inv
    Invert IsFinite IsInf IsNan LeftShift Less LessEqual Lgamma Log Log1p
    LogicalAnd LogicalNot LogicalOr Maximum Minimum Mod Mul MulNoNan Ndtri Neg
    NextAfter NotEqual Pow Real RealDiv Reciprocal RightShift Rint Round Rsqrt
    Select SelectV2 Sigmoid Sign Sin Sinh Sqrt Square SquaredDifference Sub Tan
    Tanh TruncateDiv TruncateMod Xdivy Xlog1py Xlogy Zeta
"""
_REDUCTIONS = """
    All Any ArgMax ArgMin Bincount Bucketize Cumprod CumulativeLogsumexp
    DenseBincount EuclideanNorm Max Mean Min Prod SegmentMax SegmentMean
    SegmentMin SegmentProd SegmentSum Sum UnsortedSegmentMax
    UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum
"""
_SHAPES = """
    BatchToSpace BatchToSpaceND BroadcastArgs BroadcastTo Concat ConcatV2
    DepthToSpace Diag DiagPart DynamicPartition DynamicStitch ExpandDims Fill
    Gather GatherNd GatherV2 InvertPermutation LinSpace LowerBound
    MatrixBandPart MatrixDiag MatrixDiagPart MatrixDiagPartV2
    MatrixDiagPartV3 MatrixDiagV2 MatrixDiagV3 MatrixSetDiag MatrixSetDiagV2
    MatrixSetDiagV3 MirrorPad OneHot OnesLike Pack Pad PadV2
    ParallelDynamicStitch Range Reshape Reverse ReverseSequence ReverseV2 Roll
    Slice SpaceToBatch SpaceToBatchND SpaceToDepth Split SplitV Squeeze
    StridedSlice TensorScatterAdd TensorScatterMax TensorScatterMin
    TensorScatterSub TensorStridedSliceUpdate Tile TopK TopKV2 Transpose
    Unique UniqueV2 UniqueWithCounts Unpack UpperBound Where ZerosLike
"""
_LINEAR_ALGEBRA = """
    BatchMatMul BatchMatMulV2 BatchMatMulV3 BiasAdd BiasAddV1 Cholesky Cross
    Einsum MatMul MatrixDeterminant MatrixInverse MatrixSolve
    MatrixTriangularSolve Qr SelfAdjointEigV2 SparseMatMul
    SparseTensorDenseMatMul Svd _FusedMatMul
"""
_NETWORKS = """
    AvgPool AvgPool3D Conv Conv2D Conv2DBackpropInput Conv2DBackpropInputV2
    Conv3D Conv3DBackpropInputV2 DepthwiseConv2dNative
    DepthwiseConv2dNativeBackpropInput Dilation2D Elu FractionalAvgPool
    FractionalMaxPool FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 InTopKV2
    L2Loss LRN LeakyRelu LogSoftmax MaxPool MaxPool3D MaxPoolV2
    MaxPoolWithArgmax Relu Relu6 Selu Softmax Softplus Softsign
    SparseSoftmaxCrossEntropyWithLogits _FusedBatchNormEx _FusedConv2D
"""
_RECURRENCE = """
    BlockLSTM BlockLSTMV2 CudnnRNN CudnnRNNV2 CudnnRNNV3 GRUBlockCell
    LSTMBlockCell
"""
_IMAGES_AND_SIGNALS = """
    AdjustContrastv2 AdjustHue AdjustSaturation CropAndResize FFT FFT2D FFT3D
    HSVToRGB IFFT IFFT2D IFFT3D IRFFT IRFFT2D IRFFT3D ImageProjectiveTransformV2
    ImageProjectiveTransformV3 NonMaxSuppressionV3 NonMaxSuppressionV4
    NonMaxSuppressionV5 RFFT RFFT2D RFFT3D RGBToHSV ResizeArea ResizeBicubic
    ResizeBilinear ResizeNearestNeighbor ScaleAndTranslate
"""
_QUANTIZED = """
    Dequantize FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars
    FakeQuantWithMinMaxVarsPerChannel QuantizeAndDequantizeV2
    QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 QuantizeV2
"""
_RANDOM = """
    Multinomial RandomStandardNormal RandomUniform RandomUniformInt
    StatelessMultinomial StatelessRandomGetAlg StatelessRandomGetKeyCounter
    StatelessRandomGetKeyCounterAlg StatelessRandomNormal
    StatelessRandomNormalV2 StatelessRandomUniform StatelessRandomUniformInt
    StatelessRandomUniformIntV2 StatelessRandomUniformV2
    StatelessTruncatedNormalV2 TruncatedNormal
"""


def _named(*groups):
    return frozenset(name for group in groups for name in group.split())


COMPUTING = _named(
    _STRUCTURE,
    _CONTROL,
    _STATE,
    _DECODING,
    _ELEMENTS,
    _REDUCTIONS,
    _SHAPES,
    _LINEAR_ALGEBRA,
    _NETWORKS,
    _RECURRENCE,
    _IMAGES_AND_SIGNALS,
    _QUANTIZED,
    _RANDOM,
)
# Every ordinary SavedModel brings a restorer, which its loader runs, and a
# saver, which nobody runs who only serves it. Both name files and read or
# write checkpoints: allowed there, and nowhere else.
_FILE_NAMES = _named("ShardedFilename StaticRegexFullMatch StringJoin")
RESTORING = COMPUTING | _FILE_NAMES | {"RestoreV2"}
SAVING = RESTORING | {"SaveV2", "MergeV2Checkpoints"}


def refused(path):
    """Returns the operations of a SavedModel that are not allowed where it is.

    All graphs, all their nodes and all functions of their libraries are looked
    at, used or not.

    Args:
        path: Directory of the SavedModel.

    Returns:
        Dict from operation to a list of the nodes, `function/node` within a
        function; empty if all are allowed.

    Raises:
        TicketError: It cannot be read.
    """
    return refused_of(inspection.read(path))


def refused_of(saved):
    """Returns what `refused` does, of a `SavedModel` proto."""
    found = collections.defaultdict(list)
    for meta_graph in saved.meta_graphs:
        graph = inspection.Graph(meta_graph.graph_def)
        _refuse(graph.everything(), SAVING, graph, found)
        restoring = graph.reached([meta_graph.saver_def.restore_op_name])
        _refuse(restoring, RESTORING, graph, found)
        # `tf.saved_model.load` may call any function of an object.
        functions = meta_graph.object_graph_def.concrete_functions
        serving = graph.reached(_served(meta_graph), functions)
        _refuse(serving, COMPUTING, graph, found)
    return {op: sorted(set(nodes)) for op, nodes in sorted(found.items())}


def _refuse(nodes, allowed, graph, found):
    for where, node in nodes:
        # Calling a function by its name is a kind of operation, too.
        if node.op not in allowed and node.op not in graph.functions:
            found[node.op].append(where)


def _served(meta_graph):
    """Yields the places that loading and requests run, besides restoring."""
    for signature in meta_graph.signature_def.values():
        for info in [*signature.outputs.values(), *signature.inputs.values()]:
            yield from inspection.places(info)
    for key, collection in meta_graph.collection_def.items():
        # `main_op` and `legacy_init_op`, and variables' initializers.
        if key != "saved_model_assets":
            yield from collection.node_list.value
