// Bytes of one HTTP response → events of the answer, without a socket: Beast's parser, the SSE
// parser, the answer's reader. One object a response.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "server/bench/answer_reader.h"

namespace tessera::bench {

class HttpAnswer final {
 public:
  /// `reader` outlives the object.
  explicit HttpAnswer(AnswerReader& reader);
  ~HttpAnswer();
  HttpAnswer(const HttpAnswer&) = delete;
  HttpAnswer& operator=(const HttpAnswer&) = delete;

  /// Consumes bytes from the front of `bytes` and returns how many. Those left over must be offered
  /// again in front of what arrives after them.
  [[nodiscard]] size_t feed(std::string_view bytes);
  /// The server has closed the connection.
  void feed_end();

  [[nodiscard]] bool is_complete() const noexcept;  ///< the response has ended as HTTP wants it
  [[nodiscard]] bool is_reusable() const;           ///< complete, and the connection stays open
  /// Not empty: what is wrong with the response, be it complete or not.
  [[nodiscard]] std::string error() const;

 private:
  class Parser;
  std::unique_ptr<Parser> parser_;
};

}  // namespace tessera::bench
