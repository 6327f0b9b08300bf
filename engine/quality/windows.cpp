#include "engine/quality/windows.h"

#include "engine/base/text.h"

namespace tessera {

Result<std::vector<TextWindow>> choose_windows(std::span<const int32_t> ids,
                                               std::optional<int32_t> bos_id,
                                               int64_t count,
                                               int64_t length) {
  const auto num_ids = static_cast<int64_t>(ids.size());
  const int64_t num_own = length - (bos_id.has_value() ? 1 : 0);
  if (count < 1 || num_own < 1) {
    return invalid_argument(str_cat(count, " windows of ", length, " tokens"));
  }
  const int64_t step = num_ids / count;
  if (step < num_own) {
    return invalid_argument(str_cat("a text of ",
                                    num_ids,
                                    " tokens has no room for ",
                                    count,
                                    " windows of ",
                                    length,
                                    ": give a longer text, fewer windows or shorter lengths"));
  }
  std::vector<TextWindow> windows;
  for (int64_t i = 0; i < count; ++i) {
    TextWindow window;
    if (bos_id.has_value()) {
      window.push_back(*bos_id);
    }
    const auto own = ids.subspan(static_cast<size_t>(i * step), static_cast<size_t>(num_own));
    window.insert(window.end(), own.begin(), own.end());
    windows.push_back(std::move(window));
  }
  return windows;
}

}  // namespace tessera
