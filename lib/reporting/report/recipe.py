"""Of the methods in report.html: how frames were read and prepared, the network, and how it was trained."""

from __future__ import annotations

import re

from lib.networks import SCALES, as_pretrained
from lib.reporting.glossary import counted
from lib.reporting.report.facts import folds_text
from lib.reporting.report.source import Source
from lib.study import Augmentation, Data, Study, Training
from lib.tasks.wording import Wording, listed

SCHEDULES = {"constant": "a constant learning rate", "plateau": "a learning rate that fell when validation stopped improving",
             "cosine_restarts": "cosine annealing with warm restarts", "one_cycle": "a one-cycle schedule",
             "poly": "a polynomial schedule"}
SCHEDULE_OPTIONS = {"factor": "times {}", "patience": "after {} epochs without a better score", "T_0": "first after {} epochs",
                    "T_mult": "each cycle {} times as long as the one before", "warm_up": "rising over a share of {}",
                    "power": "power {}"}
OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}
NETWORKS = {"unet": "a U-Net", "deeplabv3_resnet50": "DeepLabV3 on ResNet-50", "deeplabv3_resnet101": "DeepLabV3 on ResNet-101",
            "mobilenet_v2_boxes": "a MobileNetV2 with a head that finds one box per structure",
            "biometry_cnn": "a network of two convolutions and a linear layer", "r2plus1d_18": "R(2+1)D-18"}
# spelling of names -> as papers print them
PRINTED = {r"(?:tu-)?resnet(\d+)": r"ResNet-\1", r"efficientnet-b(\d)": r"EfficientNet-B\1", "mobilenet_v2": "MobileNetV2",
           r"densenet(\d+)": r"DenseNet-\1", r"vgg(\d+)": r"VGG-\1", "Unet": "U-Net", "UnetPlusPlus": "U-Net++",
           "DeepLabV3Plus": "DeepLabV3+"}
# a network's keys -> words; by network where they mean something else
OPTIONS = {"depth": "{} halvings", "dropout": "dropout of {}", "stride": "heat maps at a stride of {} px",
           "encoder_depth": "encoder of {} halvings", "decoder_channels": "{} channels in the decoder"}
WIDTHS = {"unet": "{} channels at full resolution", "mobilenet_v2_boxes": "{} channels in the head"}
CHOICES = {("bilinear", True): "upsampling by interpolation", ("bilinear", False): "upsampling by transposed convolutions",
           ("head", "heatmap"): "a heat map for each structure", ("head", "regression"): "boxes by regression from the features"}
UNSAID = ("name", "gradcam_layer", "mean", "std")  # what changes nothing that is learnt, or is the scale of the weights


# --- frames --------------------------------------------------------------------------------------------------------


def preprocessing_text(source: Source, study: Study) -> str:
    data, window, channels = study.data, study.window, source.prepared.manifest["channels"]
    rows, columns = data.size
    intensity = {"none": "Grey levels were left as they are.",
                 "zscore": "Intensities became z-scores of each case and channel (inside the brain mask where there is one, else "
                           f"over the whole image), clipped to \u00b1{data.clip:g}."}
    whole = source.prepared.manifest.get("whole_series", False)
    if window.frames == 1:
        sample = "A sample was one frame."
    elif whole:
        sample = (f"A sample was a clip of {window.frames} frames{every(window.stride)}: a random one in training, "
                  f"{window.test_windows} evenly spaced ones in testing, whose logits were averaged.")
    else:
        sample = (f"A sample was a frame with its neighbours, {window.frames} frames{every(window.stride)}, which the network "
                  "saw together.")
    more = [f"The network saw frames resized by {window.scale:g}."] if window.scale != 1 else []
    more += ["Outside training, outputs were averaged over each window and its mirror image."] if window.mirror else []
    # what the reader said of the reading; folders that were prepared before it was asked have none of it
    return " ".join([*source.prepared.manifest.get("methods", ()),
                     f"Each frame ({listed(channels)}) was scaled to fit {rows} x {columns} pixels (rows x columns), its "
                     f"proportions kept, and padded. {intensity[data.intensity]} {sample}",
                     *levels_text(study, len(channels)), *more])


def levels_text(study: Study, channels: int) -> list[str]:
    """What became of stored values on their way into the network; [] if nothing did."""
    network, store = study.network, study.data.store
    weights, mean, std = (network.get(key) for key in ("weights", "mean", "std"))
    if as_pretrained(weights, mean, std, store, channels):
        return ["The network saw grey levels by the mean and standard deviation of its pretrained weights."]
    offset, spread = (mean, std) if mean is not None else SCALES[store]
    offset, spread = (listed([f"{value:g}" for value in one]) if isinstance(one, (list, tuple)) else f"{one:g}"
                      for one in (offset, spread))
    return [] if (offset, spread) == ("0", "1") else [
        f"The network saw {'grey levels' if store == 'uint8' else 'values'} less {offset}, divided by {spread}."]


def every(stride: int) -> str:
    return f" at a stride of {stride}" if stride > 1 else ""


# --- the network -------------------------------------------------------------------------------------------------


def printed(name: str) -> str:
    """A network's name as papers print it: smp/DeepLabV3Plus/resnet18 -> DeepLabV3+ on ResNet-18."""
    library, _, rest = name.partition("/")
    if library == "smp":
        architecture, _, encoder = rest.partition("/")
        return f"{spelt(architecture)} on {spelt(encoder)} (segmentation-models-pytorch)"
    return f"{spelt(rest)} (torchvision)" if library == "torchvision" else NETWORKS.get(name, name)


def spelt(name: str) -> str:
    found = ((re.fullmatch(pattern, name), text) for pattern, text in PRINTED.items())
    return next((match.expand(text) for match, text in found if match), name)


def network_text(network: dict) -> str:
    """Its name, and its keys in words."""
    said = []
    for key, value in network.items():
        if key in UNSAID or key.endswith("weights") or value is None:
            continue
        widths = {"width": WIDTHS.get(network["name"], "{} channels")}
        words = (OPTIONS | widths).get(key, f"{key.replace('_', ' ')} {{}}")
        shown = listed([str(one) for one in value]) if isinstance(value, (list, tuple)) else value
        said.append(CHOICES.get((key, value if isinstance(value, (bool, str)) else None), words.format(shown)))
    return printed(network["name"]) + (f" ({'; '.join(said)})" if said else "")


# --- training ----------------------------------------------------------------------------------------------------


def training_text(source: Source, study: Study, words: Wording | None) -> str:
    settings, first = study.training, next(iter(source.models.values()))
    weights = [str(value) for key, value in study.network.items() if key.endswith("weights") and value]
    size = f", with {first['parameters']:,} parameters" if first.get("parameters") else ""
    begun = f"from pretrained weights ({listed(weights)})" if weights else "from random weights"
    lines = [f"The network, {network_text(study.network)}{size}, was trained {begun}"
             + (f" {words.aim}. The loss was {words.loss}." if words else ".")]
    momentum = f", momentum {settings.momentum:g}" if settings.optimizer in ("sgd", "rmsprop") else ""
    batch = f"batches of {settings.batch_size}" + (f", {settings.accumulate} of them per step" if settings.accumulate > 1 else "")
    early = waits(source, settings) and settings.patience < settings.epochs
    stops = f", stopping after {settings.patience} without a better validation score" if early else ""
    lines.append(f"It was optimised by {OPTIMIZERS[settings.optimizer]} (learning rate {settings.learning_rate:g}, weight decay "
                 f"{settings.weight_decay:g}{momentum}) with {schedule_text(source, settings)}, in {batch}, for at most "
                 f"{counted(settings.epochs, 'epoch')}{stops}.")
    if source.scored and source.unscored and (waits(source, settings) or settings.schedule == "plateau"):
        lines.append(f"Without validation patients, training of {folds_text(source.unscored)} was neither stopped early nor "
                     "slowed by a score.")
    return " ".join([*lines, *training_details(source, settings, words), augmentation_text(study.augmentation, study.data)])


def waits(source: Source, settings: Training) -> bool:
    """Whether training may have stopped early: patience needs validation patients."""
    return bool(settings.patience and source.scored)


def schedule_text(source: Source, settings: Training) -> str:
    if settings.schedule == "plateau" and not source.scored:  # no score, which it would wait for
        return SCHEDULES["constant"]
    chosen = [SCHEDULE_OPTIONS.get(key, f"{key} {{}}").format(value) for key, value in settings.schedule_options.items()]
    return SCHEDULES[settings.schedule] + (f" ({listed(chosen)})" if chosen else "")


def training_details(source: Source, settings: Training, words: Wording | None) -> list[str]:
    lines = [f"Gradients were clipped to a norm of {settings.clip_norm:g}."] if settings.clip_norm else []
    if settings.sampler == "balanced":
        lines.append(words.balance if words else "Samples were drawn in balance.")
    if settings.average:
        done = "validated and kept" if source.scored else "kept"
        lines.append(f"The exponential moving average of the weights (decay {settings.average:g}) was {done}.")
    if settings.unfreezing:
        steps = [f"{layers} from epoch {epoch + 1}" for epoch, layers in sorted(settings.unfreezing.items())]
        lines.append(f"Of the network's layers, counted from the output, only these learnt: {listed(steps)}.")
    mixed = [fold for fold, model in source.models.items() if model.get("amp")]
    if mixed:
        whose = "Training" if len(mixed) == len(source.models) else f"Training of {folds_text(mixed)}"
        lines.append(f"{whose} used mixed precision (bfloat16).")
    return [*lines, f"The seed of training was {settings.seed}."]


def grey_unit(data: Data) -> str:
    """What shifts and noise are numbers of: see lib/data/augmentation.py."""
    if data.store == "uint8":
        return "of white"
    return "standard deviations" if data.intensity == "zscore" else "grey levels"


def augmentation_text(settings: Augmentation, data: Data) -> str:
    """What changes training batches, and nothing of what does not."""
    unit = grey_unit(data)
    neutral = {"rotation_range": (0, 0), "zoom_range": (1, 1), "translation_range": (0, 0), "brightness_range": (1, 1),
               "brightness_shift": (0, 0), "contrast_range": (1, 1), "noise_level": (0, 0), "temporal_crop_range": (1, 1)}
    said = {"rotation_range": "rotation by {} to {} degrees", "zoom_range": "zoom by {} to {}",
            "translation_range": "shift by {} to {} of the frame", "brightness_range": "intensities times {} to {}",
            "brightness_shift": f"plus {{}} to {{}} {unit}", "contrast_range": "contrast times {} to {}",
            "noise_level": f"Gaussian noise of {{}} to {{}} {unit}",
            "temporal_crop_range": "{} to {} of the clip stretched to all of it"}
    parts = ["top-bottom mirroring"] * settings.flip_rows + ["left-right mirroring"] * settings.flip_columns
    parts += [said[key].format(*(f"{value:g}" for value in getattr(settings, key))) for key, plain in neutral.items()
              if tuple(getattr(settings, key)) != plain]
    lines = [f"Training batches were augmented by {listed(parts)}, each with a probability of {settings.transform_prob:g}."
             ] if parts and settings.transform_prob else ["Training batches were not augmented."]
    if settings.temporal_mask_prob:
        lines.append(f"A frame was replaced by the mean of its neighbours with a probability of {settings.temporal_mask_prob:g}.")
    twin = settings.synthetic_low_quality
    if twin:
        lines.append(f"For a share of {twin.share:g} of the good samples of a batch, a degraded twin labelled poor was added "
                     f"(contrast reduced by {twin.contrast_reduction:g}, blur over {twin.blur_kernel} px, noise of "
                     f"{twin.noise_level:g} {unit}).")
    return " ".join(lines)
