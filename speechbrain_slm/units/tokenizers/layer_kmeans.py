"""K-means over a layer of a pretrained encoder."""

from speechbrain_slm.units.tokenizers.kmeans import KMeansTokenizer
from speechbrain_slm.units.tokenizers.pretrained import PretrainedModel


class LayerKMeans(PretrainedModel, KMeansTokenizer):
    """A tokenizer of an encoder's layer; subclasses know the encoder.

    Arguments
    ---------
    source : A hub name or a local folder.
    layer
        Layer whose output is clustered, from 1. Layers above it are not kept.
    centroids : A codebook's file (.npy, .safetensors) instead of a fit.
    codebooks : ``joint`` or ``language`` (see :class:`KMeansTokenizer`).
    deduplicate : Write a unit that repeats itself once.
    precision : ``fp32`` or ``bf16`` (see :class:`PretrainedModel`).
    """

    patience = 100

    def __init__(
        self,
        source: str,
        layer: int,
        num_clusters: int = 500,
        centroids: str | None = None,
        codebooks: str = "joint",
        deduplicate: bool = True,
        precision: str = "fp32",
    ) -> None:
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
