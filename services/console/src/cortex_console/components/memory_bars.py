"""What a model takes of each device, as bars of its parts."""

from cortex_console.components.badge import badge
from cortex_console.components.text import Text, box, labelled
from cortex_console.domain.form.memory import PARTS, Device, Estimate
from cortex_console.domain.formatting import bytes_text
from cortex_console.domain.states import Tone


def memory_bars(estimate: Estimate) -> None:
    """One bar for each device, the whole width being what is free there, and a legend."""
    if not estimate.devices:
        return
    for device in estimate.devices:
        _device(device)
    with box("mb-legend"):
        for name, label in PARTS:
            amount = sum(device.parts[name] for device in estimate.devices)
            with box("mb-key", "span"):
                box(f"mb-swatch mb-{name}", "span").props('aria-hidden="true"')
                Text("span", label)
                Text("span", bytes_text(amount), "c-muted")


def _device(device: Device) -> None:
    with box("mb-device"):
        with box("c-line"):
            Text("span", device.title, "c-strong")
            if device.layers:
                Text("span", f"{device.layers} layers", "c-hint")
            if device.fits is False:
                badge("too much", Tone.BAD)
            box("c-spring")
            Text("span", device.summary, "c-hint mb-figures")
        parts = ", ".join(f"{label} {bytes_text(device.parts[name])}" for name, label in PARTS)
        over = device.free is not None and device.total > device.free
        with labelled(
            box(f"mb-bar{' mb-over' if over else ''}").props('role="img"'), f"{device.title}: {device.summary}; {parts}"
        ):
            for name, _ in PARTS:
                if device.parts[name]:
                    share = 100 * device.parts[name] / device.scale
                    box(f"mb-part mb-{name}").style(f"width:{share:.2f}%")
            if over and device.free is not None:
                box("mb-limit").style(f"left:{100 * device.free / device.scale:.2f}%")
