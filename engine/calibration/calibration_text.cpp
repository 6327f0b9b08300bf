#include "engine/calibration/calibration_text.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "engine/base/text.h"
#include "engine/quality/windows.h"

namespace tessera {
namespace {

void append(std::vector<TextWindow> windows, std::vector<TextWindow>& to) {
  std::move(windows.begin(), windows.end(), std::back_inserter(to));
}

}  // namespace

Result<CalibrationText> cut_calibration_text(const std::vector<std::vector<int32_t>>& texts,
                                             std::optional<int32_t> bos_id,
                                             const CalibrationTextOptions& options) {
  CalibrationText result;
  const auto num_texts = std::max<int64_t>(1, static_cast<int64_t>(texts.size()));
  const int64_t wanted = options.num_tokens / num_texts;
  const int64_t judged = std::max<int64_t>(1, options.num_quality_windows / num_texts);
  const int64_t judged_tokens = options.lengths.window_tokens();
  for (size_t index = 0; index < texts.size(); ++index) {
    const std::span<const int32_t> ids(texts[index]);
    const auto known = ids.first(ids.size() - ids.size() / 10);
    const auto held_out = ids.subspan(known.size());
    const int64_t length = std::min(options.window_tokens, static_cast<int64_t>(known.size()));
    const int64_t available = std::min(wanted, static_cast<int64_t>(known.size()));
    const int64_t count = std::max<int64_t>(1, available / std::max<int64_t>(1, length));
    if (static_cast<int64_t>(held_out.size()) < judged * judged_tokens) {
      return invalid_argument(str_cat("text ",
                                      index + 1,
                                      " has ",
                                      ids.size(),
                                      " tokens, expected ",
                                      10 * judged * judged_tokens,
                                      " or more: a tenth of it is held out"));
    }
    TESSERA_TRY(auto windows, choose_windows(known, bos_id, count, length));
    TESSERA_TRY(auto harm, choose_windows(known, bos_id, judged, judged_tokens));
    TESSERA_TRY(auto last, choose_windows(held_out, bos_id, judged, judged_tokens));
    append(std::move(windows), result.windows);
    append(std::move(harm), result.harm_windows);
    append(std::move(last), result.held_out);
  }
  return result;
}

}  // namespace tessera
