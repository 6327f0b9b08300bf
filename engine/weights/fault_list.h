// Collects every fault of something that was asked for, so that all are reported together.
#pragma once

#include <string>

#include "engine/base/result.h"

namespace tessera {

class FaultList final {
 public:
  void add(const std::string& fault) { text_ += (text_.empty() ? "" : "\n") + fault; }
  void add(const Status& faults) {
    if (!faults.is_ok()) {
      add(faults.message());
    }
  }
  void require(bool condition, const std::string& fault) {
    if (!condition) {
      add(fault);
    }
  }
  /// Ok, or INVALID_ARGUMENT with all faults, one a line.
  [[nodiscard]] Status status() const {
    return text_.empty() ? Status::ok() : invalid_argument(text_);
  }

 private:
  std::string text_;
};

}  // namespace tessera
