"""Search in Chinese without a dictionary: pages and queries are cut into pairs of characters.

Sphinx's own Chinese search indexes nothing without jieba, and with it never segments what is typed in the browser, so
that a phrase is not found.
"""

from __future__ import annotations

import re

import snowballstemmer
from sphinx.application import Sphinx
from sphinx.search import languages
from sphinx.search.zh import SearchChinese

HAN = r"\u3400-\u9fff\uf900-\ufaff"
RUN = re.compile(f"[{HAN}]+|[A-Za-z0-9_]+")

SPLIT_QUERY = """
function splitQuery(query) {
  const words = [];
  for (const run of query.match(/[HAN]+|[A-Za-z0-9_]+/g) || []) {
    if (!/[HAN]/.test(run) || run.length === 1) words.push(run);
    else for (let i = 0; i + 1 < run.length; i++) words.push(run.slice(i, i + 2));
  }
  return words;
}
""".replace("HAN", HAN)


class SearchChineseByPairs(SearchChinese):
    """Indexes each Chinese character and each pair of neighbours; other words as they are."""

    js_splitter_code = SPLIT_QUERY

    def init(self, options: dict[str, str]) -> None:
        self.stemmer = snowballstemmer.stemmer("english")

    def split(self, text: str) -> list[str]:
        words = []
        for run in RUN.findall(text):
            if run[0] >= "\u3400":
                words += [*run, *(run[i : i + 2] for i in range(len(run) - 1))]
            else:
                words.append(run)
                self.latin_terms.append(run)
        return words

    def word_filter(self, word: str) -> bool:
        return word[0] >= "\u3400" or len(word) > 1


def setup(app: Sphinx) -> dict[str, bool]:
    languages["zh"] = SearchChineseByPairs
    return {"parallel_read_safe": True, "parallel_write_safe": True}
