//! Our own want of descriptors, ports or memory is not the backend's failure, and never a made-up answer.
