// Checks that the two halves of convert.h share.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/deadline.h"
#include "engine/base/status.h"
#include "engine/base/text.h"
#include "server/rpc/wire_limits.h"

namespace tessera::rpc {

[[nodiscard]] inline Status check_range(std::string_view field,
                                        int64_t value,
                                        int64_t low,
                                        int64_t high) {
  if (value >= low && value <= high) {
    return Status::ok();
  }
  return invalid_argument(str_cat(field, " is ", value, ", expected ", low, " to ", high));
}

[[nodiscard]] inline Status check_not_negative(std::string_view field, int64_t value) {
  return value >= 0 ? Status::ok()
                    : invalid_argument(str_cat(field, " is ", value, ", expected at least 0"));
}

[[nodiscard]] inline Status check_count(std::string_view field, int64_t count, int64_t limit) {
  if (count <= limit) {
    return Status::ok();
  }
  return invalid_argument(str_cat(field, " has ", count, " entries, at most ", limit));
}

[[nodiscard]] inline Status check_bytes(std::string_view field,
                                        std::string_view text,
                                        int64_t limit) {
  if (static_cast<int64_t>(text.size()) <= limit) {
    return Status::ok();
  }
  return invalid_argument(str_cat(field, " has ", text.size(), " bytes, at most ", limit));
}

/// At most `limit` tokens, none negative.
template <typename Ids>
[[nodiscard]] Status check_token_ids(std::string_view field, const Ids& ids, int64_t limit) {
  Status status = check_count(field, ids.size(), limit);
  if (!status.is_ok()) {
    return status;
  }
  const auto bad = std::find_if(ids.begin(), ids.end(), [](int32_t id) { return id < 0; });
  return bad == ids.end()
             ? Status::ok()
             : invalid_argument(str_cat(field, " names token ", *bad, ", expected at least 0"));
}

/// Text for a protobuf string: cut to `limit` bytes, and ASCII only when it is not UTF-8.
[[nodiscard]] inline std::string clean_text(std::string_view text, int64_t limit) {
  const auto max_bytes = static_cast<size_t>(limit);
  std::string cut(text.substr(0, max_bytes));
  while (text.size() > max_bytes && !cut.empty() && (cut.back() & 0x80) != 0) {
    cut.pop_back();  // perhaps a part of a character
  }
  if (!is_valid_utf8(cut)) {
    std::replace_if(
        cut.begin(), cut.end(), [](char c) { return (c & 0x80) != 0; }, '?');
  }
  return cut;
}

/// Milliseconds that are left, at least 1; 0 for no deadline.
[[nodiscard]] inline int64_t to_timeout_ms(const Deadline& deadline) {
  if (deadline.is_infinite()) {
    return 0;
  }
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline.at() - Deadline::Clock::now());
  return std::clamp<int64_t>(left.count(), 1, kMaxTimeoutMs);
}

[[nodiscard]] inline Deadline from_timeout_ms(int64_t timeout_ms) {
  return timeout_ms == 0 ? Deadline() : Deadline::after(std::chrono::milliseconds(timeout_ms));
}

}  // namespace tessera::rpc
