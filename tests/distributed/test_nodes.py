"""Two hosts: two network namespaces that a cable joins."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from processes import ROOT, TINY_LM, lm_command, log_entries, run, start

SCRIPT = ROOT / "tests" / "training.py"
LIMIT = 4  # seconds
# Dropout is drawn by rank: without it ranks add up to one process.
SETTINGS = {"lm": TINY_LM["lm"].replace("0.1", "0"), "heartbeat_timeout": LIMIT}


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Hosts:
    """Two network namespaces, and what runs on each."""

    names = tuple(f"slm{os.getpid()}{letter}" for letter in "ab")
    addresses = "10.231.7.1", "10.231.7.2"

    def make(self):
        """Join them by a cable; its ends have the names of the hosts."""
        for name in self.names:
            ip("netns", "add", name)
        one, two = self.names
        end = ["peer", "name", two, "netns", two]
        ip("link", "add", one, "netns", one, "type", "veth", *end)
        for name, address in zip(self.names, self.addresses, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
            self.plug_in(name)

    def plug_in(self, name):
        for device in ("lo", name):
            ip("-n", name, "link", "set", device, "up")

    def remove(self):
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def train(self, units, output, fault):
        """Train with a rank on each; return exit codes and outputs."""
        recipe = lm_command(units, output, 1, SCRIPT, **SETTINGS)[1:]
        agents = []
        for first, name, address in zip(
            (1, 0), self.names, self.addresses, strict=True
        ):
            arguments = ["ip", "netns", "exec", name, sys.executable, "-m"]
            arguments += ["torch.distributed.run", "--nnodes=2"]
            arguments += ["--nproc_per_node=1", "--rdzv_backend=c10d"]
            arguments += [f"--rdzv_endpoint={self.addresses[0]}:29500"]
            # These hosts have no names that lead to their addresses.
            arguments += [f"--rdzv_conf=is_host={first}", "--rdzv_id=two"]
            arguments += [f"--local_addr={address}"]
            environment = {"FAULT": fault, "GLOO_SOCKET_IFNAME": name}
            agents.append(start([*arguments, *recipe], **environment))
        try:
            texts = [agent.communicate(timeout=120)[0] for agent in agents]
        finally:
            for agent in agents:
                agent.kill()
        return [agent.returncode for agent in agents], texts


@pytest.fixture(scope="module")
def hosts():
    if shutil.which("ip") is None:
        pytest.skip("no `ip` (iproute2) to make network namespaces with")
    made = Hosts()
    try:
        made.make()
    except subprocess.CalledProcessError as error:
        made.remove()
        pytest.skip(f"no network namespaces: {error.stderr.decode().strip()}")
    yield made
    made.remove()


@pytest.fixture(scope="module")
def together(hosts, units, tmp_path_factory):
    """The folder of a run on two hosts."""
    output = tmp_path_factory.mktemp("nodes") / "together"
    codes, texts = hosts.train(units, output, "none:0:0")
    assert codes == [0, 0], texts
    return output


def printed(folder):
    """Return the losses of a run, every digit that it shows of them."""
    text = (folder / "train_log.txt").read_text()
    return re.findall(r"^step: \d+|(?:loss|valid \w+): [\d.]+", text, re.M)


def test_two_hosts_train_as_one_process(together, units, tmp_path):
    arguments = lm_command(units, tmp_path, 1, SCRIPT, **SETTINGS)
    code, text = run(arguments, FAULT="none:0:0")
    assert code == 0, text
    assert len(printed(tmp_path)) == 10 + 8 + 2 * 3
    assert printed(together) == printed(tmp_path)


def test_a_pulled_cable(hosts, together, units, tmp_path):
    """Both hosts say what they wait for, and end; later they go on."""
    first, output = hosts.names[0], tmp_path / "run"
    fault = f"pull:0:25:{tmp_path / 'pulled'}:{first}"
    codes, texts = hosts.train(units, output, fault)
    hosts.plug_in(first)
    # torchrun of the one that was cut off may be killed: -9.
    assert all(codes), texts
    lost = (
        "Rank 1",
        rf"The node on which the ranks meet \({hosts.addresses[0]}\)",
    )
    for rank, (text, who) in enumerate(zip(texts, lost, strict=True)):
        (line,) = [one for one in text.splitlines() if "error: " in one]
        said = rf"error: {who} has shown no sign of life for 4 s .* "
        said += rf"Rank {rank} has stood for \d+ s after step 25 of 40 in "
        assert re.search(rf"{said}.*accumulate > backward \(update.py, ", line)
    codes, texts = hosts.train(units, output, fault)
    assert codes == [0, 0], texts
    assert "Resumed at step 20 of 40" in texts[0]
    assert log_entries(output) == log_entries(together)
