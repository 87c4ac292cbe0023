"""Words -> tokens: a language model of the form of BERT, as MatSciBERT, SciBERT and MiniLM are."""

import contextlib
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from xxlib import PROJECT
from xxlib.models.config import ModelError
from xxlib.models.encoders.text import N_WORDS
from xxlib.models.inputs import Tokens

PIECES = 24  # of a word, at most: one of descriptions is several words of a language
MOST_REMEMBERED = 200_000  # texts: 0.3 GB of MiniLM's vectors
LORA_SCALE = 2  # of what low-rank matrices add, whatever their rank
# What a folder must have; of several files one is enough.
FILES = (("config.json",), ("model.safetensors", "pytorch_model.bin"), ("vocab.txt", "tokenizer.json"))


class LanguageModelEncoder(nn.Module):
    """The vectors of a language model for a text, and their mean as CLS, projected.

    The model stays as it is, and remembers what it has said of a text; where `lora` is above 0, matrices of that rank
    are learned beside those of its queries and values (Hu et al., arXiv 2106.09685).  Of a fusion that reads summaries
    it makes no tokens.  Untrained until `read` has brought the weights of its folder, or a checkpoint has.
    """

    modality = "text"
    masks_what_is_absent = False  # it is padding

    def __init__(self, config):
        """config: a ModelConfig.  Raises ModelError where the folder is not that of a language model."""
        super().__init__()
        sizes = config.encoders[self.modality]
        self.folder, self.learns = folder_of(sizes.folder), sizes.lora > 0
        transformers = _imported("transformers")
        with _readable(self.folder):
            own = transformers.BertConfig.from_pretrained(self.folder, local_files_only=True)
            self.model = transformers.BertModel(own, add_pooling_layer=False).requires_grad_(False)
        self.most = own.max_position_embeddings
        if self.learns:
            peft = _imported("peft")
            lora = peft.LoraConfig(
                r=sizes.lora, lora_alpha=LORA_SCALE * sizes.lora, target_modules=["query", "value"],
                lora_dropout=config.dropout,
            )  # fmt: skip
            peft.inject_adapter_in_model(lora, self.model)
        self.make_vocabulary()
        self.project = nn.Linear(own.hidden_size, config.d_fused)
        self.sums_up = config.fusion is not None and not config.fusion.kind.endswith("attention")
        self.remembered = {}  # words of a text -> its mean vector (D,)

    def make_vocabulary(self):
        """Make room for the pieces of each word of a Text: a checkpoint brings them."""
        self.register_buffer("pieces", torch.zeros(N_WORDS, PIECES, dtype=torch.int64))  # 0 = none
        self.register_buffer("ends", torch.zeros(2, dtype=torch.int64))  # what stands before and after a text

    def fill_vocabulary(self, words):
        """Take the pieces of each word from the tokenizer of the folder."""
        tokenizer = self.tokenizer()
        for row, word in zip(self.pieces, words, strict=True):
            own = tokenizer(word, add_special_tokens=False)["input_ids"]
            row[: len(own)] = torch.tensor(own)
        self.ends.copy_(torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id]))

    @torch.no_grad()
    def read(self, words):
        """Bring the weights of the folder, and its own pieces of each of some words (N_WORDS,).

        Raises ModelError where they are damaged, incomplete or not those of a BERT.
        """
        transformers = _imported("transformers")
        transformers.logging.disable_progress_bar()
        transformers.logging.set_verbosity_error()  # it reports what is there for other heads
        options = {"add_pooling_layer": False, "local_files_only": True, "output_loading_info": True}
        with _readable(self.folder):
            model, info = transformers.BertModel.from_pretrained(self.folder, **options)
            if info["missing_keys"]:
                raise ValueError(f"its weights lack {min(info['missing_keys'])}")
            weights = model.state_dict()
            for name, values in self.model.named_parameters():
                if "lora_" not in name:
                    values.copy_(weights[name.replace(".base_layer", "")])
            self.fill_vocabulary(words)

    def tokenizer(self):
        """That of the folder; raises ValueError where it has another padding than ours."""
        transformers = _imported("transformers")
        transformers.logging.set_verbosity_error()  # it warns of texts that are cut below
        tokenizer = transformers.BertTokenizerFast.from_pretrained(self.folder, local_files_only=True)
        if tokenizer.pad_token_id != 0:
            raise ValueError(f"its padding is piece {tokenizer.pad_token_id}, not 0")
        return tokenizer

    def train(self, mode=True):
        """As of nn.Module; a language model that learns nothing has no dropout."""
        super().train(mode)
        self.model.train(mode and self.learns)
        return self

    def forward(self, text, cls_only=False):
        """Tokens (B, 1 + S, d_fused) of a Text, S pieces of its words; of the CLS alone, (B, 1, d_fused), if cls_only.

        A text of more pieces than the model has positions for is cut.
        """
        ids = text[0]  # of words or of letters
        if cls_only or self.sums_up:
            cls = self.summaries(ids)
            return Tokens(self.project(cls[:, None]), text.pad.new_zeros(len(cls), 1))
        cls, x, pad = self.vectors(ids)
        return Tokens(self.project(torch.cat([cls[:, None], x], dim=1)), F.pad(pad, (1, 0), value=False))

    def summaries(self, word_ids):
        """The mean vectors (B, D) of words (B, S).

        On a CPU a model that learns nothing reads each text once, and alone: what shares its batch then changes no bit.
        """
        if self.learns or word_ids.device.type != "cpu":
            return self.vectors(word_ids)[0]
        texts = [words[words > 0] for words in word_ids]
        keys = [words.numpy().tobytes() for words in texts]
        if len(self.remembered) + len(keys) > MOST_REMEMBERED:
            self.remembered.clear()
        for key, words in zip(keys, texts):
            if key not in self.remembered:
                self.remembered[key] = self.vectors(words[None])[0][0]
        return torch.stack([self.remembered[key] for key in keys])

    def vectors(self, word_ids):
        """Of words (B, S) the mean vectors (B, D), those of all pieces (B, S', D), and their padding (B, S')."""
        ids, pad = (values[:, : self.most] for values in self.in_pieces(word_ids))
        with torch.set_grad_enabled(self.learns and torch.is_grad_enabled()):
            x = self.model(input_ids=ids, attention_mask=(~pad).long()).last_hidden_state  # (B, S', D)
        weights = (~pad)[..., None] / (~pad).sum(1)[:, None, None]  # (B, S', 1)
        return (x * weights).sum(1), x, pad

    def n_too_long(self, text):
        """How many of an input (B,) have more pieces than the model has positions for."""
        return int(((~self.in_pieces(text[0])[1]).sum(1) > self.most).sum())

    def in_pieces(self, word_ids):
        """Words (B, S) -> pieces (B, S') between the two ends, and their padding."""
        first, last = self.ends.expand(len(word_ids), 2).split(1, dim=1)
        ids = torch.cat([first, self.pieces[word_ids].flatten(1), last], dim=1)  # (B, 2 + S P)
        there = ids > 0
        there[:, [0, -1]] = True
        order = (~there).int().argsort(dim=1, stable=True)  # what is there first, in its order
        longest = int(there.sum(1).max())
        ids, there = (values.gather(1, order)[:, :longest] for values in (ids, there))
        return ids, ~there


class DescriptionEncoder(LanguageModelEncoder):
    """The same for a Description, which the tokenizer of the folder takes to pieces."""

    modality = "description"

    def make_vocabulary(self):
        """That of the tokenizer, which must be there whenever a model is built, as config.json must."""
        with _readable(self.folder):
            self.cut = self.tokenizer()

    def fill_vocabulary(self, words):
        """It is whole."""

    def in_pieces(self, letters):
        """Letters (B, S) -> pieces (B, S') between the two ends, and their padding."""
        said = [bytes(row[row > 0].tolist()).decode(errors="ignore") for row in letters.cpu()]
        pieces = self.cut(said, padding=True, return_tensors="pt").to(letters.device)
        return pieces["input_ids"], pieces["attention_mask"] == 0


def folder_of(name):
    """The folder of a language model: itself, relative to the project's, or the name of a package that brings one.

    Raises ModelError, with the file that is missing.
    """
    package = find_spec(name) if name.isidentifier() else None
    folder = Path(package.origin).parent / "model" if package and package.origin else PROJECT / name
    if not folder.is_dir():
        raise ModelError(f"language model {name!r}: {folder} is no folder, and no package has this name")
    for files in FILES:
        if not any((folder / file).is_file() for file in files):
            raise ModelError(f"language model {name!r}: {folder} lacks {' or '.join(files)}")
    return folder


def _imported(name):
    try:
        return __import__(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ModelError(f"language models are read by {name}: pip install 'xxlib[language]'") from None


@contextlib.contextmanager
def _readable(folder):
    """Whatever is wrong with the files of a language model becomes a ModelError of one line."""
    try:
        yield
    except Exception as error:  # of transformers, tokenizers, safetensors and pickle
        why = " ".join(str(error).split())[:150]
        raise ModelError(f"language model in {folder} cannot be read ({type(error).__name__}: {why})") from error
