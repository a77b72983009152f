// "Did you mean …?": the known name that a mistyped one is nearest to.
#pragma once

#include <algorithm>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

namespace waystation {

// Levenshtein's distance: insertions, deletions and replacements of single bytes.
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

// The first of the nearest; empty when `known` is.
inline std::string nearest_name(std::string_view name, const std::vector<std::string>& known) {
  const auto nearest =
      std::min_element(known.begin(), known.end(), [name](const auto& a, const auto& b) {
        return edit_distance(name, a) < edit_distance(name, b);
      });
  return nearest == known.end() ? std::string() : *nearest;
}

}  // namespace waystation
