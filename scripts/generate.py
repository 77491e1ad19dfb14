"""Continue a text with a trained model.

python scripts/generate.py run=FOLDER [prompt="Once upon"] [length=500] [temperature=1] [top_k=NUMBER] [seed=1]

prompt=TEXT        beginning of the text; by default the vocabulary's first token, which is not printed; words that are
                   not in the vocabulary are read as <unk>, and named on stderr
length=500         number of tokens: bytes, characters or words, depending on the run's task
temperature=1      below 1 favours probable tokens, above 1 improbable ones; 0: always the most probable token
top_k=NUMBER       draw only from the most probable tokens
seed=1             seed of the draws
checkpoint=best    or last
trust=PACKAGE,…    your own packages that the run's configuration may call
"""

from typing import Any

from bptt.configuration.arguments import RUN, chosen_run, run_script, script_arguments
from bptt.contracts import refusal


def main() -> None:
    own: dict[str, str | None] = {"prompt": "", "length": "500", "temperature": "1", "top_k": None, "seed": "1"}
    arguments, others = script_arguments({**RUN, **own})
    folder, options = chosen_run(arguments, others)
    numbers: dict[str, Any] = {}
    for name, kind in (("length", int), ("temperature", float), ("top_k", int), ("seed", int)):
        if arguments[name] is not None:
            try:
                numbers[name] = kind(arguments[name])
            except ValueError:
                raise ValueError(refusal(name, "a number", arguments[name])) from None
    from bptt.lightning.terminal import say
    from bptt.runs.generation import generate, load_for_generation, unknown_tokens
    from bptt.tasks.base import several
    from bptt.tasks.text import Text

    module = load_for_generation(folder, checkpoint=options["checkpoint"], trust=options["trust"])
    if not isinstance(module.task, Text):
        raise ValueError(refusal("run", "a run of task=text", type(module.task).__name__))
    generated = generate(module.model, module.task, prompt=arguments["prompt"], **numbers)
    if unknown := unknown_tokens(module.task, arguments["prompt"]):
        say(f"read as <unk>, not in the vocabulary: {several(unknown)}", error=True)
    print(generated)


if __name__ == "__main__":
    run_script(main, __doc__)
