//! Frame Streams: data frames in a file or connection, and the handshake of both ends.

pub(in crate::control::observe::taps) const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control::observe::taps) enum ControlFrame {
    Accept = 1,
    Start = 2,
    Stop = 3,
    Ready = 4,
    Finish = 5,
}

/// The result of parsing the bytes that a reader has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::control::observe::taps) enum DnstapFrame {
    Part,
    Control(ControlFrame),
    /// Bytes that no reader of dnstap sends.
    Nonsense,
}

/// Builds a control frame, with the content type where that is required.
pub(in crate::control::observe::taps) fn control_frame(control: ControlFrame) -> Vec<u8> {
    let fields = match control {
        ControlFrame::Accept | ControlFrame::Start | ControlFrame::Ready => {
            [&CONTENT_TYPE_FIELD.to_be_bytes()[..], &(CONTENT_TYPE.len() as u32).to_be_bytes(), CONTENT_TYPE].concat()
        }
        ControlFrame::Stop | ControlFrame::Finish => Vec::new(),
    };
    let len = TYPE_LEN + fields.len();
    [&[0; 4][..], &(len as u32).to_be_bytes(), &(control as u32).to_be_bytes(), &fields].concat()
}

pub(in crate::control::observe::taps) fn data_frame_len(out: &[u8]) -> Option<usize> {
    out.first_chunk().map(|len| PREFIX + u32::from_be_bytes(*len) as usize)
}

/// Parses the bytes that a reader has sent so far.
pub(in crate::control::observe::taps) fn read_control(octets: &[u8]) -> DnstapFrame {
    let mut rest = octets;
    let mut word = || {
        let (word, after) = rest.split_first_chunk()?;
        rest = after;
        Some(u32::from_be_bytes(*word))
    };
    let (Some(escape), Some(len)) = (word(), word()) else { return DnstapFrame::Part };
    let len = len as usize;
    if escape != 0 || !(TYPE_LEN..=MAX_CONTROL).contains(&len) {
        return DnstapFrame::Nonsense;
    }
    if octets.len() < 2 * PREFIX + len {
        return DnstapFrame::Part;
    }
    let controls =
        [ControlFrame::Accept, ControlFrame::Start, ControlFrame::Stop, ControlFrame::Ready, ControlFrame::Finish];
    let Some(control) = word().and_then(|word| controls.into_iter().find(|known| *known as u32 == word)) else {
        return DnstapFrame::Nonsense;
    };
    let mut fields = rest.get(..len - TYPE_LEN).unwrap_or_default();
    let mut is_ours = control != ControlFrame::Accept;
    while let Some((&[f0, f1, f2, f3, l0, l1, l2, l3], after)) = fields.split_first_chunk() {
        let Some((value, after)) = after.split_at_checked(u32::from_be_bytes([l0, l1, l2, l3]) as usize) else {
            return DnstapFrame::Nonsense;
        };
        is_ours |= u32::from_be_bytes([f0, f1, f2, f3]) == CONTENT_TYPE_FIELD && value == CONTENT_TYPE;
        fields = after;
    }
    if is_ours && fields.is_empty() { DnstapFrame::Control(control) } else { DnstapFrame::Nonsense }
}

/// The length before a frame, or the zero before a control frame.
const PREFIX: usize = 4;

const TYPE_LEN: usize = 4;

pub(in crate::control::observe::taps) const MAX_CONTROL: usize = 512;

const CONTENT_TYPE_FIELD: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_frames_are_written_and_read() {
        assert_eq!(control_frame(ControlFrame::Stop), [0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 3]);
        let ready = control_frame(ControlFrame::Ready);
        assert_eq!(ready[..20], [0, 0, 0, 0, 0, 0, 0, 34, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 22]);
        assert_eq!(&ready[20..], CONTENT_TYPE);
        for control in
            [ControlFrame::Accept, ControlFrame::Start, ControlFrame::Stop, ControlFrame::Ready, ControlFrame::Finish]
        {
            let frame = control_frame(control);
            assert_eq!(read_control(&frame), DnstapFrame::Control(control));
            assert_eq!(read_control(&[&frame[..], b"more"].concat()), DnstapFrame::Control(control));
            for short in 0..frame.len() {
                assert_eq!(read_control(&frame[..short]), DnstapFrame::Part, "{control:?} {short}");
            }
        }
    }

    #[test]
    fn nonsense_is_told_from_frames() {
        let edit = |at: usize, octet: u8| {
            let mut frame = control_frame(ControlFrame::Accept);
            frame[at] = octet;
            read_control(&frame)
        };
        assert_eq!(read_control(b"HTTP/1.1 400 Bad Request"), DnstapFrame::Nonsense);
        assert_eq!(edit(0, 1), DnstapFrame::Nonsense, "a data frame");
        assert_eq!(edit(4, 1), DnstapFrame::Nonsense, "too long");
        assert_eq!(edit(7, 3), DnstapFrame::Nonsense, "too short for its type");
        assert_eq!(edit(11, 9), DnstapFrame::Nonsense, "an unknown type");
        assert_eq!(edit(19, 23), DnstapFrame::Nonsense, "a field that does not fit");
        assert_eq!(edit(25, b'X'), DnstapFrame::Nonsense, "another content");
        assert_eq!(read_control(&[0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1]), DnstapFrame::Nonsense, "no content at all");
    }

    #[test]
    fn data_frames_have_their_length() {
        assert_eq!(data_frame_len(b"\0\0\0\x03abc"), Some(7));
        assert_eq!(data_frame_len(b"\0\0\0"), None);
    }
}
