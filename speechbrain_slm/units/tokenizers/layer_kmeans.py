"""K-means over a layer of a pretrained encoder."""

from speechbrain_slm.units.tokenizers.kmeans import KMeansTokenizer
from speechbrain_slm.units.tokenizers.pretrained import PretrainedModel


class LayerKMeans(PretrainedModel, KMeansTokenizer):
    """A tokenizer of an encoder's layer; subclasses know the encoder.

    Arguments
    ---------
    source : str
        A hub name or a local folder.
    layer : int
        Layer whose output is clustered, from 1. Layers above it are not kept.
    num_clusters : int
        Size of a codebook.
    centroids : str, optional
        A codebook's file (.npy, .safetensors) instead of a fit.
    codebooks : str
        ``joint`` or ``language`` (see :class:`KMeansTokenizer`).
    deduplicate : bool
        Write a unit that repeats itself once.
    precision : str
        ``fp32`` or ``bf16`` (see :class:`PretrainedModel`).
    """

    patience = 100

    def __init__(
        self,
        source,
        layer,
        num_clusters=500,
        centroids=None,
        codebooks="joint",
        deduplicate=True,
        precision="fp32",
    ):
        KMeansTokenizer.__init__(
            self, num_clusters, codebooks, deduplicate, centroids
        )
        PretrainedModel.__init__(self, source, precision)
        self.layer = layer

    def _check_layer(self, there_are):
        if not 1 <= self.layer <= there_are:
            raise ValueError(
                f"layer is {self.layer}; {self.source} has layers 1 to "
                f"{there_are}"
            )

    def _choices(self):
        return {
            "layer": self.layer,
            "num_clusters": self.num_clusters,
            "codebooks": self.codebooks,
        }
