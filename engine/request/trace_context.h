// W3C trace context of one request: what its log lines at every role have in common, and what each
// role passes on to the next. https://www.w3.org/TR/trace-context/
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tessera {

struct TraceContext {
  uint64_t trace_high = 0;
  uint64_t trace_low = 0;
  uint64_t span = 0;  ///< of whoever sent it
  uint8_t flags = 0;  ///< bit 0: sampled
  friend bool operator==(const TraceContext&, const TraceContext&) = default;

  /// The header's value; none when it is not one, or of a trace or span 0.
  [[nodiscard]] static std::optional<TraceContext> parse(std::string_view traceparent);
  /// A trace that begins here, not sampled.
  [[nodiscard]] static TraceContext random();
  /// That of `traceparent`, or a new one.
  [[nodiscard]] static TraceContext parse_or_random(std::string_view traceparent);

  [[nodiscard]] bool is_valid() const noexcept {
    return (trace_high != 0 || trace_low != 0) && span != 0;
  }
  /// The same trace with a span of this role's own: what is passed on.
  [[nodiscard]] TraceContext child() const;
  [[nodiscard]] std::string trace_id() const;     ///< 32 hexadecimal digits
  [[nodiscard]] std::string traceparent() const;  ///< the header's value
};

}  // namespace tessera
