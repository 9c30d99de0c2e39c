"""What a change of the signing key does to what is signed, through a whole proxy."""

import base64

from proxy.api import Outcome
from proxy.serve import Proxy
from proxy.trust import SigningKey
from tests.proxy.asking import ask
from tests.simulators.world import World, spy_on


def signer(answer, keys):
    """Return which of the keys signed the answer."""
    payload, signature = (base64.b64decode(text) for text in (answer.signature.payload, answer.signature.signature))
    return next(key for key in keys if key.made(payload, signature))


async def test_images_signed_by_the_older_key_stay_in_force_while_it_is_trusted_and_are_made_again_after(
    tmp_path, monkeypatch
):
    older = tmp_path / "older.pub"
    async with World(tmp_path / "world") as world:
        config = world.config()
        old, new = SigningKey.generate(), SigningKey.generate()
        old.save(config.signing_key)
        older.write_bytes(old.public.render_pem())
        async with Proxy(config.model_copy(update={"trusted_keys": (older,)})) as proxy:
            patches = spy_on(proxy.engine.patcher, monkeypatch)
            image = world.add_image()
            first = await ask(proxy, image)
            assert (first.outcome, signer(first, [old.public])) == (Outcome.PATCHED, old.public)
            new.save(config.signing_key)
            assert signer(await ask(proxy, image), [new.public, old.public]) == old.public
            assert signer(await ask(proxy, world.add_image()), [new.public, old.public]) == new.public
            before = patches.total()
            older.write_bytes(new.public.render_pem())
            again = await ask(proxy, image)
            assert (signer(again, [new.public]), again.patched) == (new.public, first.patched)
            assert patches.total() == before + 1
